"""The generic path: any geometry that knows its point functions, geoopt's included."""

from typing import Any, cast, final

import torch
from jaxtyping import Float
from torch import Tensor

from drift_core.manifold.interface import Manifold, Pairs
from drift_core.manifold.numerics import safe_inverse


def broadcast_pairs(manifold: Manifold, x: Float[Tensor, "n ..."], y: Float[Tensor, "m ..."]) -> Pairs:
    """Pairs from the point functions alone, one row of x at a time: slower, and right everywhere.

    A new manifold can implement `Manifold.pairs` as `return broadcast_pairs(self, x, y)`.
    """
    r = torch.stack([manifold.dist(xi.expand_as(y), y) for xi in x])

    def direction_sum(weight: Tensor) -> Tensor:
        logs = (manifold.logmap(xi.expand_as(y), y) for xi in x)
        return torch.stack(
            [torch.tensordot(a, log, dims=1) for a, log in zip(weight * safe_inverse(r), logs, strict=True)]
        )

    return Pairs(r, direction_sum)


@final
class GeooptManifold(Manifold):
    """Any geoopt manifold, through its own projx, proju, inner, dist, expmap and logmap.

    geoopt is not a dependency: the object is only asked for these methods and its `ndim`. Accuracy is
    that of the wrapped manifold (geoopt's sphere returns 0.0141 for every smaller float32 distance).
    """

    def __init__(self, manifold: Any) -> None:
        missing = [
            name
            for name in ("ndim", "projx", "proju", "inner", "dist", "expmap", "logmap")
            if not hasattr(manifold, name)
        ]
        if missing:
            raise ValueError(
                f"expected a geoopt manifold, got {manifold!r}, which has no {', '.join(missing)}"
            )
        self.manifold = manifold

    def __repr__(self) -> str:
        return f"GeooptManifold({self.manifold!r})"

    @property
    def point_ndim(self) -> int:
        """Number of point axes of the wrapped manifold."""
        return int(self.manifold.ndim)

    def projx(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Project onto the wrapped manifold."""
        return cast(Tensor, self.manifold.projx(x))

    def proju(self, x: Float[Tensor, "..."], u: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Project onto the tangent space of the wrapped manifold."""
        return cast(Tensor, self.manifold.proju(x, u))

    def inner(
        self, x: Float[Tensor, "..."], u: Float[Tensor, "..."], v: Float[Tensor, "..."]
    ) -> Float[Tensor, "..."]:
        """Inner product of the wrapped manifold."""
        # With keepdim=False, geoopt's stereographic manifolds broadcast the conformal factor wrongly.
        kept = cast(Tensor, self.manifold.inner(x, u, v, keepdim=True))
        return kept.flatten(-self.point_ndim).squeeze(-1)

    def dist(self, x: Float[Tensor, "..."], y: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Distance of the wrapped manifold."""
        return cast(Tensor, self.manifold.dist(x, y))

    def expmap(self, x: Float[Tensor, "..."], u: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Exponential map of the wrapped manifold."""
        return cast(Tensor, self.manifold.expmap(x, u))

    def logmap(self, x: Float[Tensor, "..."], y: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Logarithm of the wrapped manifold, and zero from a point to itself."""
        u = cast(Tensor, self.manifold.logmap(x, y))
        return u.masked_fill(u.isnan(), 0)

    def pairs(self, x: Float[Tensor, "n ..."], y: Float[Tensor, "m ..."]) -> Pairs:
        """Pairs by broadcasting."""
        return broadcast_pairs(self, x, y)
