"""Surfaces with a two-dimensional chart, the logarithm at an origin."""

import math
from dataclasses import dataclass

import torch
from drift_core import Euclidean, Hyperboloid, Manifold, Sphere, Torus
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from drift_synthetic.space import TOLERANCE, Map, circles, same

_NUDGE = 1e-5


@dataclass(frozen=True)
class ChartSpace:
    """A surface with the chart u = log_o(x), whose inverse is x = exp_o(u): normal coordinates at o.

    Distances from the origin are those of the chart; circles of radius r have the length 2 pi r on the
    plane, 2 pi sin r on the sphere and 2 pi sinh r on the hyperboloid.
    """

    name: str
    manifold: Manifold
    origin: tuple[float, ...]
    """Point at the centre of the chart."""
    columns: tuple[str, ...]
    """Names of the ambient coordinates."""
    first: int
    """First of the two ambient coordinates in which tangent vectors at the origin lie."""
    board: float
    """Half the width of the checkerboard in the chart."""
    roll: float
    """Radius at which the swiss roll ends."""
    expected: str
    """What a row of a file should be."""
    edge: float = math.inf
    """Distance from the origin within which float32 points are kept; networks then put out charts."""
    embed: Map = same
    """Euclidean coordinates, by default the ambient ones."""
    metrics: tuple[str, ...] = ("sliced_wasserstein", "tile_accuracy", "c2st")
    limit: float = math.inf
    """Largest chart coordinate, where charts wrap round; rows of a file may be twice as large."""

    chart_columns = ("u1", "u2")

    @property
    def label(self) -> str:
        """What figures call it."""
        return f"the {self.name}"

    @property
    def outputs(self) -> int:
        """Two chart coordinates where there is an edge, else as many as ambient coordinates."""
        return 2 if self.edge < math.inf else len(self.origin)

    def point(self, outputs: Float[Tensor, "n k"]) -> Float[Tensor, "n d"]:
        """Points for charted outputs within the edge, else their projection."""
        if self.edge < math.inf:
            return self.lift(self.within(outputs))
        return self.manifold.projx(outputs)

    def to_rows(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """The points themselves."""
        return x

    def from_rows(self, rows: Float[Tensor, "n d"]) -> tuple[Float[Tensor, "n d"], Bool[Tensor, " n"]]:
        """Projected rows, and which were points: on the space or, where charts wrap round, within range."""
        points = self.manifold.projx(rows)
        off = (points - rows).abs() - TOLERANCE if self.limit == math.inf else rows.abs() - 2 * self.limit
        return points, (off <= 0).all(dim=1)

    def lift(self, u: Float[Tensor, "n 2"]) -> Float[Tensor, "n d"]:
        """Points exp_o(u) of chart coordinates u, in the precision of u."""
        tangent = u.new_zeros(u.shape[0], len(self.origin))
        tangent[:, self.first : self.first + 2] = u
        return self.manifold.expmap(u.new_tensor(self.origin), tangent)

    def within(self, u: Float[Tensor, "n 2"]) -> Float[Tensor, "n 2"]:
        """Chart coordinates u, smoothly contracted so that none lies beyond the edge; most hardly change.

        A distance r from the origin becomes r / (1 + (r/edge)^8)^(1/8).
        """
        r = u.norm(dim=1, keepdim=True)
        return u / (1 + (r / self.edge) ** 8) ** 0.125

    def chart(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n 2"]:
        """Chart coordinates log_o(x) of points x; the sphere's antipode of the origin maps to 0."""
        return self.manifold.logmap(x.new_tensor(self.origin), x)[:, self.first : self.first + 2]

    def push(self, x: Float[Tensor, "n d"], v: Float[Tensor, "n d"]) -> Float64[Tensor, "n 2"]:
        """Chart components of vectors v at points x: the differential of chart(projx(x)) applied to v.

        Ambient vectors are thereby projected first, as samples are. It is a central difference with steps of
        length 1e-5, with an error of about 1e-10 |v| in float64.
        """
        x, v = self.manifold.projx(x.double()), v.double()
        length = v.norm(dim=1, keepdim=True)
        step = _NUDGE * v / length.clamp_min(torch.finfo(v.dtype).tiny)
        ahead, behind = (self.chart(self.manifold.projx(x + s * step)) for s in (1, -1))
        change = ahead - behind
        if self.limit < math.inf:  # the two may lie on different sides of the seam
            change = torch.remainder(change + self.limit, 2 * self.limit) - self.limit
        return length * change / (2 * _NUDGE)


CHARTS = (
    ChartSpace("plane", Euclidean(), (0.0, 0.0), ("x", "y"), 0, 1.0, 1.0, "two numbers"),
    # The corners of the board, and the end of the roll but for its noise, are 2 radians from the pole.
    ChartSpace(
        "sphere", Sphere(), (0.0, 0.0, 1.0), ("x", "y", "z"), 0,
        board=2**0.5, roll=2.0, expected="a unit vector",
    ),
    # Corners, and the end of the roll with its noise, are 2.5 from the origin. Beyond the edge, the
    # rounding of float32 coordinates alone moves the Minkowski norm by up to 1e-5.
    ChartSpace(
        "hyperboloid", Hyperboloid(), (1.0, 0.0, 0.0), ("t", "x", "y"), 1,
        board=2.5 * 0.5**0.5, roll=2.25, expected="a point with -t^2 + x^2 + y^2 = -1 and t > 0", edge=2.7,
    ),
    ChartSpace(
        "torus", Torus(2), (0.0, 0.0), ("phi", "psi"), 0, board=math.pi, roll=0.9 * math.pi,
        expected="two angles in [-2 pi, 2 pi] radians", embed=circles, limit=math.pi,
        metrics=("sliced_wasserstein", "mmd", "tile_accuracy", "c2st"),
    ),
)  # fmt: skip
"""The surfaces with charts."""
