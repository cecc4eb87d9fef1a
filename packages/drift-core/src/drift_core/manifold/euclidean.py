"""Flat space."""

from typing import final

from jaxtyping import Float
from torch import Tensor

from drift_core.manifold.interface import Manifold, Pairs
from drift_core.manifold.numerics import euclidean_cdist, safe_inverse


@final
class Euclidean(Manifold):
    """Euclidean space R^d; points are vectors [..., d] and log_x(y) = y - x."""

    def __repr__(self) -> str:
        return "Euclidean()"

    @property
    def point_ndim(self) -> int:
        """Points are vectors."""
        return 1

    def projx(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Every vector is a point."""
        return x

    def proju(self, x: Float[Tensor, "*#batch d"], u: Float[Tensor, "*#batch d"]) -> Float[Tensor, "*_ d"]:
        """Every vector is tangent."""
        return u

    def inner(
        self, x: Float[Tensor, "*#batch d"], u: Float[Tensor, "*#batch d"], v: Float[Tensor, "*#batch d"]
    ) -> Float[Tensor, "..."]:
        """Dot product of u and v."""
        return (u * v).sum(-1)

    def dist(self, x: Float[Tensor, "*#batch d"], y: Float[Tensor, "*#batch d"]) -> Float[Tensor, "..."]:
        """Length of y - x."""
        return (x - y).norm(dim=-1)

    def expmap(self, x: Float[Tensor, "*#batch d"], u: Float[Tensor, "*#batch d"]) -> Float[Tensor, "..."]:
        """Point x + u."""
        return x + u

    def logmap(self, x: Float[Tensor, "*#batch d"], y: Float[Tensor, "*#batch d"]) -> Float[Tensor, "..."]:
        """Displacement y - x."""
        return y - x

    def pairs(self, x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Pairs:
        """Distances |x_i - y_j|, and sums of their unit vectors as a float64 matrix product."""
        r = euclidean_cdist(x, y)

        def direction_sum(weight: Tensor) -> Tensor:
            a = (weight * safe_inverse(r)).double()
            return (a @ y.double() - a.sum(1, keepdim=True) * x.double()).to(x.dtype)

        return Pairs(r, direction_sum)
