"""Products of different manifolds."""

import math
from collections.abc import Iterator, Sequence
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from drift_core.arguments import positive
from drift_core.manifold.interface import Manifold, Pairs
from drift_core.manifold.numerics import safe_inverse, safe_sqrt


@final
class Product(Manifold):
    """Product of different manifolds; a point is one vector [..., d], the factors' coordinates in order.

        Product((Sphere(), 3), (Euclidean(), 2), weights=(1.0, 0.25))  # S^2 x R^2, points [..., 5]
        Product((SO3(), 4), (SPD(2), (2, 2)))  # the shape of points, if they have several axes

    Weights multiply squared distances, d^2 = sum_k w_k d_k^2; a weight of 0.25 halves distances.
    Where two points have no direction in one factor, they still have that of the others.

    Args:
        factors: manifolds with the number of coordinates of their points, or their shape.
        weights: positive weights, one a factor; None: 1 each.

    Raises:
        ValueError: no factor, a shape that does not suit its manifold, weights that are not positive or not
            as many as factors.
    """

    def __init__(
        self, *factors: tuple[Manifold, int | tuple[int, ...]], weights: Sequence[float] | None = None
    ) -> None:
        if not factors:
            raise ValueError("a Product needs at least one factor, got none")
        shapes = [(shape,) if isinstance(shape, int) else tuple(shape) for _, shape in factors]
        for (manifold, _), shape in zip(factors, shapes, strict=True):
            if len(shape) != manifold.point_ndim or manifold.point_shape not in (None, shape):
                raise ValueError(f"{manifold!r} has no points of shape {list(shape)}")
        given = (1.0,) * len(factors) if weights is None else tuple(weights)
        if len(given) != len(factors):
            raise ValueError(f"a Product of {len(factors)} factors needs as many weights, got {len(given)}")
        self.manifolds, self.shapes = tuple(manifold for manifold, _ in factors), tuple(shapes)
        self.weights = tuple(positive("a weight", weight) for weight in given)
        self._widths = [math.prod(shape) for shape in shapes]
        self.point_shape = (sum(self._widths),)
        self.injectivity_radius = min(
            math.sqrt(w) * m.injectivity_radius for m, w in zip(self.manifolds, self.weights, strict=True)
        )

    def __repr__(self) -> str:
        shapes = (shape[0] if len(shape) == 1 else shape for shape in self.shapes)
        factors = ", ".join(f"({m!r}, {s})" for m, s in zip(self.manifolds, shapes, strict=True))
        plain = set(self.weights) == {1.0}
        return f"Product({factors})" if plain else f"Product({factors}, weights={self.weights})"

    @property
    def point_ndim(self) -> int:
        """Points are vectors."""
        return 1

    def split(self, x: Float[Tensor, "*batch d"]) -> list[Tensor]:
        """Points of each factor, [..., *shape]."""
        parts = torch.split(x, self._widths, dim=-1)
        return [
            part.reshape(*part.shape[:-1], *shape) for part, shape in zip(parts, self.shapes, strict=True)
        ]

    def join(self, *parts: Tensor) -> Float[Tensor, "*batch d"]:
        """Points of the product from those of each factor, the inverse of `split`."""
        return torch.cat([p.flatten(-len(s)) for p, s in zip(parts, self.shapes, strict=True)], dim=-1)

    def projx(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Project each factor."""
        return self.join(*(m.projx(*p) for m, _, p in _factors(self, x)))

    def proju(self, x: Float[Tensor, "*#batch d"], u: Float[Tensor, "*#batch d"]) -> Float[Tensor, "*_ d"]:
        """Project onto each factor's tangent space."""
        return self.join(*(m.proju(*p) for m, _, p in _factors(self, x, u)))

    def egrad2rgrad(
        self, x: Float[Tensor, "*#batch d"], u: Float[Tensor, "*#batch d"]
    ) -> Float[Tensor, "*_ d"]:
        """Riemannian gradient of each factor, over its weight."""
        return self.join(*(m.egrad2rgrad(*p) / w for m, w, p in _factors(self, x, u)))

    def admissible(
        self, x: Float[Tensor, "*#batch d"], u: Float[Tensor, "*#batch d"]
    ) -> Float[Tensor, "*_ d"]:
        """The part of the step that each factor admits."""
        return self.join(*(m.admissible(*p) for m, _, p in _factors(self, x, u)))

    def inner(
        self, x: Float[Tensor, "*#batch d"], u: Float[Tensor, "*#batch d"], v: Float[Tensor, "*#batch d"]
    ) -> Float[Tensor, "..."]:
        """Weighted sum of the factors' inner products."""
        return torch.stack([w * m.inner(*p) for m, w, p in _factors(self, x, u, v)]).sum(0)

    def dist(self, x: Float[Tensor, "*#batch d"], y: Float[Tensor, "*#batch d"]) -> Float[Tensor, "..."]:
        """Root of the weighted sum of the factors' squared distances."""
        return torch.stack([math.sqrt(w) * m.dist(*p) for m, w, p in _factors(self, x, y)]).norm(dim=0)

    def expmap(self, x: Float[Tensor, "*#batch d"], u: Float[Tensor, "*#batch d"]) -> Float[Tensor, "..."]:
        """Exponential map of each factor."""
        return self.join(*(m.expmap(*p) for m, _, p in _factors(self, x, u)))

    def logmap(self, x: Float[Tensor, "*#batch d"], y: Float[Tensor, "*#batch d"]) -> Float[Tensor, "..."]:
        """Logarithm of each factor."""
        return self.join(*(m.logmap(*p) for m, _, p in _factors(self, x, y)))

    def pairs(self, x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Pairs:
        """Pairs of each factor, whose sums are of their logarithms over the whole distance."""
        parts = [(w, m.pairs(*p)) for m, w, p in _factors(self, x, y)]
        r = safe_sqrt(torch.stack([w * pair.dist.square() for w, pair in parts]).sum(0))

        def direction_sum(weight: Tensor) -> Tensor:
            a = weight * safe_inverse(r)
            return self.join(*(pair.direction_sum(a * pair.dist) for _, pair in parts))

        return Pairs(r, direction_sum)


def _factors(product: Product, *tensors: Tensor) -> Iterator[tuple[Manifold, float, list[Tensor]]]:
    """Each factor with its weight and its parts of the tensors."""
    parts = (list(part) for part in zip(*map(product.split, tensors), strict=True))
    return zip(product.manifolds, product.weights, parts, strict=True)
