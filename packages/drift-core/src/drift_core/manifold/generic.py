"""Pairs of any manifold from its point functions, and the manifolds of geoopt."""

import math
from collections.abc import Callable
from typing import Any, cast, final

import torch
from jaxtyping import Float
from torch import Tensor

from drift_core.manifold.interface import Manifold, Pairs
from drift_core.manifold.numerics import safe_inverse

_BLOCK = 2**17
"""Coordinates of the points that are passed to a point function at once."""


def broadcast_pairs(manifold: Manifold, x: Float[Tensor, "n ..."], y: Float[Tensor, "m ..."]) -> Pairs:
    """Pairs of any manifold from `dist` and `logmap`, some rows of x at a time.

    A new manifold can implement `Manifold.pairs` as `return broadcast_pairs(self, x, y)`. Its functions are
    called with two clouds [k, *point] of pairs.
    """
    point, rows = y.shape[1:], max(1, _BLOCK // max(1, y.numel()))

    def of_pairs(function: Callable[[Tensor, Tensor], Tensor], part: Tensor) -> Tensor:
        """Values of a point function [rows, m, ...] at the pairs of some x and all y."""
        shape = len(part), len(y), *point
        clouds = part[:, None].expand(shape), y.expand(shape)
        values = function(*(cloud.reshape(-1, *point) for cloud in clouds))
        return values.reshape(*shape[:2], *values.shape[1:])

    parts = torch.split(x, rows)
    r = torch.cat([of_pairs(manifold.dist, part) for part in parts])

    def direction_sum(weight: Tensor) -> Tensor:
        sums = []
        for part, share in zip(parts, torch.split(weight * safe_inverse(r), rows), strict=True):
            logs = of_pairs(manifold.logmap, part).flatten(2)
            sums.append((share[:, None].to(logs) @ logs).view(-1, *point))
        return torch.cat(sums)

    return Pairs(r, direction_sum)


@final
class GeooptManifold(Manifold):
    """A geoopt manifold, through its own point functions.

    These work: Euclidean, Sphere and SphereExact, PoincareBall, SphereProjection and every Stereographic,
    Lorentz, SymmetricPositiveDefinite (affine-invariant), and ProductManifold and Scaled of them. Others
    lack a logarithm or a distance in geoopt. geoopt is not a dependency: only methods and `ndim` of the
    object are used. Accuracy is that of the wrapped manifold (geoopt's sphere returns 0.0141 for every
    smaller float32 distance).

    Args:
        manifold: the geoopt manifold.
        injectivity_radius: length below which its logmap inverts its expmap; None: the known one of the
            manifolds above, an error for others.

    Raises:
        ValueError: not a manifold, a manifold that lacks some of the functions, or an injectivity radius
            that is neither known nor given.
    """

    def __init__(self, manifold: Any, *, injectivity_radius: float | None = None) -> None:
        lacking = _lacking(manifold)
        if lacking:
            raise ValueError(
                f"{manifold!r:.200} has no drift field: it does not implement {', '.join(lacking)}, "
                "which GeooptManifold needs"
            )
        if manifold.ndim < 1:
            raise ValueError(f"points need an axis, {manifold!r:.200} has none: give it ndim=1 for vectors")
        radius = _known_radius(manifold) if injectivity_radius is None else injectivity_radius
        if radius is None:
            raise ValueError(
                f"the injectivity radius of {manifold!r:.200} is not known here: "
                "give it as GeooptManifold(manifold, injectivity_radius=...)"
            )
        if not radius > 0:
            raise ValueError(f"injectivity_radius must be positive, got {radius}")
        self.manifold = manifold
        self.injectivity_radius = radius

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

    def egrad2rgrad(self, x: Float[Tensor, "..."], u: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Conversion of gradients of the wrapped manifold."""
        return cast(Tensor, self.manifold.egrad2rgrad(x, u))

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


_NEEDED = ("projx", "proju", "egrad2rgrad", "inner", "dist", "expmap", "logmap")


def _lacking(manifold: Any) -> list[str]:
    """Names of the functions that a manifold, or one of its factors, lacks or only declares."""
    if not hasattr(manifold, "ndim"):
        return ["ndim"]
    parts = [manifold, *getattr(manifold, "manifolds", ()), getattr(manifold, "base", manifold)]
    return [name for name in _NEEDED if any(_is_missing(part, name) for part in parts)]


def _is_missing(manifold: Any, name: str) -> bool:
    """Whether a method is absent, or only raises NotImplementedError."""
    method = getattr(manifold, name, None)
    code = getattr(method, "__code__", None)
    return method is None or (code is not None and code.co_names == ("NotImplementedError",))


def _known_radius(manifold: Any) -> float | None:
    """Injectivity radius of geoopt's manifolds, by class name; None for others."""
    names = {base.__name__ for base in type(manifold).__mro__ if base.__module__.startswith("geoopt.")}
    if "Scaled" in names:
        base = _known_radius(manifold.base)
        return None if base is None else base * float(manifold.scale)
    if "ProductManifold" in names:
        radii = [_known_radius(factor) for factor in manifold.manifolds]
        return None if None in radii else min(radius for radius in radii if radius is not None)
    if "Stereographic" in names:
        curvature = float(manifold.k.max())
        return math.pi / math.sqrt(curvature) if curvature > 0 else math.inf
    if "Sphere" in names:
        return math.pi
    if "SymmetricPositiveDefinite" in names:
        # Its logarithm is affine-invariant; another distance would be inconsistent with it.
        return math.inf if manifold.default_metric.value == "AIM" else None
    return math.inf if names & {"Euclidean", "Lorentz"} else None
