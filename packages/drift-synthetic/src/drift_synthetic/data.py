"""Problems: targets with exact samplers on a space, or points of a file."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from drift_core.runs.domain import Split
from drift_core.training.samplers import resample
from jaxtyping import Float32
from torch import Generator, Tensor

from drift_synthetic.chart import CHARTS
from drift_synthetic.space import Space
from drift_synthetic.spaces import find_space
from drift_synthetic.table import read_csv
from drift_synthetic.targets import (
    Checkerboard,
    RotationModes,
    Spirals,
    SwissRoll,
    Target,
    eigenfunction,
)

TargetName = Literal["checkerboard", "swiss-roll", "modes", "spirals", "eigenfunction"]

MIN_ROWS = 30
"""Fewest points of a file; a tenth of them are held out for testing."""


@runtime_checkable
class Problem(Hashable, Protocol):
    """Points of a space to learn from, and held-out points to compare with."""

    @property
    def space(self) -> Space:
        """The space of the points."""

    @property
    def target(self) -> Target | None:
        """The density, if it is known."""

    @property
    def title(self) -> str:
        """What the points are, as figures show it."""

    def sample(self, n: int, generator: Generator) -> Float32[Tensor, "m d"]:
        """Draw training points, n or as many as there are."""

    def held_out(self, n: int, generator: Generator, on: Split) -> Float32[Tensor, "m d"]:
        """Draw points for a comparison, n or as many as there are."""


@dataclass(frozen=True)
class TargetProblem:
    """A target mapped to a space, by the exponential map at the origin where it has a chart."""

    target: Target
    space: Space

    @property
    def title(self) -> str:
        """Names of the target and the space, as figures show them."""
        return f"{self.target.name} on {self.space.label}"

    def sample(self, n: int, generator: Generator) -> Float32[Tensor, "n d"]:
        """Draw n points of the space, exactly up to rounding to float32."""
        points = self.space.lift(self.target.sample(n, generator)).float()
        return self.space.manifold.projx(points)

    def held_out(self, n: int, generator: Generator, on: Split) -> Float32[Tensor, "n d"]:
        """Draw n points; every draw is fresh."""
        return self.sample(n, generator)


@dataclass(frozen=True, eq=False)
class FileProblem:
    """Points of a file, split 80/10/10 for training, validation and testing."""

    space: Space
    title: str
    train: Float32[Tensor, "n d"]
    val: Float32[Tensor, "m d"]
    test: Float32[Tensor, "m d"]
    target: None = None

    def sample(self, n: int, generator: Generator) -> Float32[Tensor, "m d"]:
        """Draw n distinct training points, or all."""
        return resample(self.train)(n, generator)

    def held_out(self, n: int, generator: Generator, on: Split) -> Float32[Tensor, "m d"]:
        """Draw n distinct points of the split, or all."""
        return resample(self.test if on == "test" else self.val)(n, generator)


_ON_CHARTS: dict[str, Callable[[Any], Target]] = {
    "checkerboard": lambda space: Checkerboard(space.board),
    "swiss-roll": lambda space: SwissRoll(space.roll),
}

TARGETS_OF: dict[str, dict[str, Callable[[Any], Target]]] = {
    **{space.name: _ON_CHARTS for space in CHARTS},
    "so3": {"modes": lambda space: RotationModes()},
    "product": {"spirals": lambda space: Spirals()},
    "mesh": {"eigenfunction": lambda space: eigenfunction(space.manifold.mesh)},
}
"""Targets of each space by name, the default first."""


def make_problem(target: str | None = None, space: str = "sphere", mesh: str | None = None) -> TargetProblem:
    """Problem by the names of its target, None for the default of the space, and its space.

    Raises:
        ValueError: a name that is not in TARGETS_OF, or as `find_space`.
    """
    where = find_space(space, mesh)
    targets = TARGETS_OF[space]
    if target is not None and target not in targets:
        raise ValueError(f"target of the {space} must be one of {', '.join(targets)}; got {target!r}")
    return TargetProblem(targets[target or next(iter(targets))](where), where)


def read_problem(path: Path, space: str, mesh: str | None = None, split_seed: int = 42) -> FileProblem:
    """Problem of the points of a file (`read_csv`), split with a seed.

    Raises:
        ValueError: fewer than 30 points, or as `read_csv` and `find_space`.
        FileNotFoundError: there is no such file.
    """
    where = find_space(space, mesh)
    points = read_csv(path, where).float()
    if len(points) < MIN_ROWS:
        raise ValueError(f"{path}: {len(points)} points; at least {MIN_ROWS} are needed to split 80/10/10")
    points = points[torch.randperm(len(points), generator=Generator().manual_seed(split_seed))]
    tenth = len(points) // 10
    parts = points[2 * tenth :], points[:tenth], points[tenth : 2 * tenth]
    return FileProblem(where, f"{path.name} on {where.label}", *parts)
