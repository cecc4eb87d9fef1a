"""The targets: exact samplers of a checkerboard and a swiss roll, in a chart and on a space."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Float32, Float64
from torch import Generator, Tensor

from drift_synthetic.chart import SPACES, Space

TARGETS = ("checkerboard", "swiss-roll")
"""The names of the targets."""

_CELLS = 4


@dataclass(frozen=True)
class Checkerboard:
    """Uniform density on the 8 black squares of a 4 x 4 board [-w, w]^2 in the chart, w the half-width."""

    half_width: float
    name: ClassVar[str] = "checkerboard"

    @property
    def side(self) -> float:
        """Length of the side of a square."""
        return 2 * self.half_width / _CELLS

    def corners(self) -> Float64[Tensor, "8 2"]:
        """Lower left corners of the black squares."""
        cells = torch.cartesian_prod(*2 * (torch.arange(_CELLS),))
        return self.side * cells[cells.sum(dim=1) % 2 == 0].double() - self.half_width

    def sample(self, n: int, generator: Generator) -> Float64[Tensor, "n 2"]:
        """Draw n chart points, exactly: a black square, then a point in it."""
        corners = self.corners()
        square = torch.randint(len(corners), (n,), generator=generator)
        return corners[square] + self.side * torch.rand(n, 2, generator=generator, dtype=torch.float64)

    def in_black(self, u: Float[Tensor, "n 2"]) -> Bool[Tensor, " n"]:
        """Whether chart points lie in black squares, the support of the density."""
        cell = ((u + self.half_width) / self.side).floor()
        on_board = ((cell >= 0) & (cell < _CELLS)).all(dim=1)
        return on_board & (cell.sum(dim=1) % 2 == 0)


@dataclass(frozen=True)
class SwissRoll:
    """Spiral of radius r t / (4.5 pi) at angle t in the chart, t uniform on [pi/2, 4.5 pi], and noise.

    The noise is Gaussian with standard deviation 0.03 r in both coordinates, where r is `radius`, the radius
    at the end of the spiral.
    """

    radius: float
    name: ClassVar[str] = "swiss-roll"

    def sample(self, n: int, generator: Generator) -> Float64[Tensor, "n 2"]:
        """Draw n chart points, exactly: a point of the spiral, then its noise."""
        t = math.pi / 2 + 4 * math.pi * torch.rand(n, generator=generator, dtype=torch.float64)
        noise = torch.randn(n, 2, generator=generator, dtype=torch.float64)
        return self.spiral(t) + 0.03 * self.radius * noise

    def spiral(self, t: Float[Tensor, " n"]) -> Float[Tensor, "n 2"]:
        """Points of the spiral at angles t (radians)."""
        return (self.radius * t / (4.5 * math.pi))[:, None] * torch.stack([t.cos(), t.sin()], dim=1)


@dataclass(frozen=True)
class Problem:
    """A target mapped to a space by the exponential map at its origin."""

    target: Checkerboard | SwissRoll
    space: Space

    @property
    def title(self) -> str:
        """Names of the target and the space, as figures show them."""
        return f"{self.target.name} on the {self.space.name}"

    def sample(self, n: int, generator: Generator) -> Float32[Tensor, "n d"]:
        """Draw n points of the space, exactly up to rounding to float32."""
        points = self.space.lift(self.target.sample(n, generator)).float()
        return self.space.manifold.projx(points)


def make_problem(target: str = "checkerboard", space: str = "sphere") -> Problem:
    """Problem by the names of its target and its space.

    Raises:
        ValueError: a name that is not in TARGETS or SPACES.
    """
    if target not in TARGETS:
        raise ValueError(f"target must be one of {', '.join(TARGETS)}; got {target!r}")
    if space not in SPACES:
        raise ValueError(f"space must be one of {', '.join(SPACES)}; got {space!r}")
    where = SPACES[space]
    shape = Checkerboard(where.board) if target == "checkerboard" else SwissRoll(where.roll)
    return Problem(shape, where)
