"""What the domain needs to know of a space: its points, how they are generated, written and compared."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from drift_core import Manifold
from jaxtyping import Bool, Float
from torch import Tensor

TOLERANCE = 1e-3
"""Distance from the space, in units of its coordinates, at which rows of a file still count as points."""

Map = Callable[[Tensor], Tensor]


def same(x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """The coordinates themselves."""
    return x


def circles(x: Float[Tensor, "n d"]) -> Float[Tensor, "n e"]:
    """Cosines and sines of angles (radians)."""
    return torch.cat([x.cos(), x.sin()], dim=1)


@runtime_checkable
class Space(Protocol):
    """A manifold with what is particular to it; a new space is one object in `drift_synthetic.spaces`."""

    @property
    def name(self) -> str:
        """Name of the space, as in `--space`."""

    @property
    def label(self) -> str:
        """What figures call it."""

    @property
    def manifold(self) -> Manifold:
        """Geometry in which samples drift."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of a file of points."""

    @property
    def chart_columns(self) -> tuple[str, ...]:
        """Columns that follow in files of samples: coordinates of the chart, if there is one."""

    @property
    def expected(self) -> str:
        """What a row of a file should be, for messages."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics by which generators are scored, of `drift_synthetic.evaluate.METRICS`."""

    @property
    def outputs(self) -> int:
        """Numbers that a network puts out for a point."""

    def point(self, outputs: Float[Tensor, "n k"]) -> Float[Tensor, "n d"]:
        """Points for outputs of a network."""

    def lift(self, u: Float[Tensor, "n c"]) -> Float[Tensor, "n d"]:
        """Points for the coordinates in which targets are defined."""

    def chart(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n c"]:
        """Coordinates in which a classifier sees points."""

    def embed(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n e"]:
        """Euclidean coordinates, in which sliced Wasserstein distances and MMD are computed; injective."""

    def to_rows(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Rows of a file for points."""

    def from_rows(self, rows: Float[Tensor, "n d"]) -> tuple[Float[Tensor, "n d"], Bool[Tensor, " n"]]:
        """Points for rows of a file, and which rows are points."""


@dataclass(frozen=True)
class AmbientSpace:
    """A space whose targets are defined, and whose outputs end, in the coordinates of its points."""

    name: str
    manifold: Manifold
    columns: tuple[str, ...]
    expected: str
    label: str
    embed: Map = same
    tolerance: float = TOLERANCE
    unit: float = 1.0
    """Length in a file's coordinates of a unit of the points'."""
    centre: tuple[float, ...] = ()
    """Origin of the points' coordinates in the file's; empty: the same."""

    chart_columns = ()
    metrics = ("sliced_wasserstein", "mmd", "c2st")

    @property
    def outputs(self) -> int:
        """As many as coordinates."""
        return len(self.columns)

    def point(self, outputs: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Projection of the outputs."""
        return self.manifold.projx(outputs)

    def lift(self, u: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """The points themselves."""
        return u

    def chart(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n e"]:
        """The embedding."""
        return self.embed(x)

    def to_rows(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Rows in the units of the file."""
        return self.unit * x + x.new_tensor(self.centre or [0.0])

    def from_rows(self, rows: Float[Tensor, "n d"]) -> tuple[Float[Tensor, "n d"], Bool[Tensor, " n"]]:
        """Projected rows, and which were within the tolerance of the space."""
        x = (rows - rows.new_tensor(self.centre or [0.0])) / self.unit
        points = self.manifold.projx(x)
        return points, (points - x).abs().amax(dim=1) <= self.tolerance
