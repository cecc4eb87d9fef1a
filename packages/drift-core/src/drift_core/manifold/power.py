"""Products of copies of one manifold."""

from dataclasses import replace
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from drift_core.manifold.interface import Manifold, Pairs
from drift_core.manifold.numerics import safe_inverse, safe_sqrt


@final
class Power(Manifold):
    """Product base^L of L copies of a manifold; points are [..., L, *base point], dist^2 sums over L."""

    def __init__(self, base: Manifold) -> None:
        self.base = base
        # A step along one factor alone is not unique beyond the base's radius.
        self.injectivity_radius = base.injectivity_radius
        if base.similarity is not None:
            self.similarity = replace(base.similarity, manifold=Power(base.similarity.manifold))

    def __repr__(self) -> str:
        return f"Power({self.base!r})"

    @property
    def point_ndim(self) -> int:
        """One axis more than a point of the base."""
        return self.base.point_ndim + 1

    def projx(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Project each factor."""
        return self.base.projx(x)

    def proju(self, x: Float[Tensor, "..."], u: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Project onto each factor's tangent space."""
        return self.base.proju(x, u)

    def egrad2rgrad(self, x: Float[Tensor, "..."], u: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Riemannian gradient of each factor."""
        return self.base.egrad2rgrad(x, u)

    def inner(
        self, x: Float[Tensor, "..."], u: Float[Tensor, "..."], v: Float[Tensor, "..."]
    ) -> Float[Tensor, "..."]:
        """Sum of the factors' inner products."""
        return self.base.inner(x, u, v).sum(-1)

    def dist(self, x: Float[Tensor, "..."], y: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Root of the sum of the factors' squared distances."""
        return self.base.dist(x, y).norm(dim=-1)

    def expmap(self, x: Float[Tensor, "..."], u: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Exponential map of each factor."""
        return self.base.expmap(x, u)

    def logmap(self, x: Float[Tensor, "..."], y: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Logarithm of each factor."""
        return self.base.logmap(x, y)

    def admissible(self, x: Float[Tensor, "..."], u: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The part of the step that each factor admits."""
        return self.base.admissible(x, u)

    def pairs(self, x: Float[Tensor, "n L ..."], y: Float[Tensor, "m L ..."]) -> Pairs:
        """Pairs, factor by factor; recomputed for the sums, since storing those of L factors takes memory."""
        positions = range(x.shape[1])
        square = sum(self.base.cdist(x[:, i], y[:, i]).square() for i in positions)

        r = safe_sqrt(torch.as_tensor(square))

        def direction_sum(weight: Tensor) -> Tensor:
            a = weight * safe_inverse(r)
            return torch.stack([self.base.log_sum(x[:, i], y[:, i], a) for i in positions], dim=1)

        return Pairs(r, direction_sum)
