"""The interface of manifolds: six point functions, and one function of all pairs."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor

from drift_core.manifold.numerics import safe_ratio


class Pairs(NamedTuple):
    """All pairs of two clouds: their distances, and weighted sums of the directions between them.

    Both come from the same intermediate values (an inner product, say), so that a caller who needs the
    distances to choose the weights computes the geometry once. Directions are unit vectors because
    grad_x d(x, y) is one, -log_x(y) / d(x, y): no weight has to grow like 1/d near coincident pairs.
    """

    dist: Tensor
    """Geodesic distances d(x_i, y_j), shape [n, m]."""
    direction_sum: Callable[[Tensor], Tensor]
    """Maps weights w [n, m] to the tangent vectors sum_j w_ij u_ij, shape [n, *point], where
    u_ij = log_{x_i}(y_j) / d(x_i, y_j), and zero where the pair has no direction."""


class Manifold(ABC):
    """A Riemannian manifold whose points are tensors; a point is the trailing `point_ndim` axes.

    Names and conventions are geoopt's. All functions broadcast over leading axes, keep the dtype of
    their arguments, and return finite values for coincident points. A new geometry implements the six
    point functions and `pairs`, for which `drift_core.manifold.broadcast_pairs` is always a valid, if
    slower, one-line implementation.
    """

    injectivity_radius: float = math.inf
    """Length below which geodesics are unique and `logmap` inverts `expmap`."""
    point_shape: tuple[int, ...] | None = None
    """Shape of a point, where the geometry fixes it."""
    similarity: "Similarity | None" = None
    """A map to a manifold whose fused loops (`drift_core.engine`) serve this one."""

    @property
    @abstractmethod
    def point_ndim(self) -> int:
        """Number of trailing axes that make up a point."""

    @abstractmethod
    def projx(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Project ambient x onto the manifold."""

    @abstractmethod
    def proju(self, x: Float[Tensor, "..."], u: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Project an ambient vector u onto the tangent space at x."""

    @abstractmethod
    def inner(
        self, x: Float[Tensor, "..."], u: Float[Tensor, "..."], v: Float[Tensor, "..."]
    ) -> Float[Tensor, "..."]:
        """Riemannian inner product of the tangent vectors u and v at x; the point axes are summed out."""

    @abstractmethod
    def dist(self, x: Float[Tensor, "..."], y: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Geodesic distance between x and y; the point axes are summed out."""

    @abstractmethod
    def expmap(self, x: Float[Tensor, "..."], u: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Follow the geodesic from x with initial velocity u for unit time."""

    @abstractmethod
    def logmap(self, x: Float[Tensor, "..."], y: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Initial velocity of the shortest geodesic from x to y; zero where that is not unique."""

    @abstractmethod
    def pairs(self, x: Float[Tensor, "n ..."], y: Float[Tensor, "m ..."]) -> Pairs:
        """Distances and weighted directions between all x_i and y_j, without an [n, m, *point] tensor."""

    def egrad2rgrad(self, x: Float[Tensor, "..."], u: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Riemannian gradient at x of a function whose gradient in ambient coordinates is u (geoopt's name).

        This default, the tangent part of u, is for metrics of the ambient space. Others override it.
        """
        return self.proju(x, u)

    def admissible(self, x: Float[Tensor, "..."], u: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Tangent vector at x to where `expmap(x, u)` ends, for u below the injectivity radius: u itself.

        A geometry with a boundary, where expmap stops, overrides this.
        """
        return u

    def near_pairs(self, x: Float[Tensor, "n ..."], y: Float[Tensor, "n k ..."]) -> Pairs:
        """`pairs` of each x_i with its own k points y_i; distances and weights are [n, k].

        Computed from `dist` and `logmap` in float64; a geometry may override it for speed.
        """
        queries, references = self.projx(x.double()).unsqueeze(1), self.projx(y.double())
        r = self.dist(queries, references)
        logs = self.logmap(queries, references)

        def direction_sum(weight: Tensor) -> Tensor:
            a = safe_ratio(weight.double(), r)
            return (a.reshape(*a.shape, *(1,) * self.point_ndim) * logs).sum(1).to(x.dtype)

        return Pairs(r.to(x.dtype), direction_sum)

    @final
    def cdist(self, x: Float[Tensor, "n ..."], y: Float[Tensor, "m ..."]) -> Float[Tensor, "n m"]:
        """Geodesic distance between all x_i and y_j. Raises ValueError for mismatched clouds."""
        check_clouds(self, x, y)
        return self.pairs(x, y).dist

    @final
    def log_sum(
        self, x: Float[Tensor, "n ..."], y: Float[Tensor, "m ..."], weight: Float[Tensor, "n m"]
    ) -> Float[Tensor, "n ..."]:
        """Weighted sums of logarithms, sum_j weight_ij log_{x_i}(y_j), as tangent vectors at x_i.

        Raises ValueError for mismatched clouds.
        """
        check_clouds(self, x, y)
        pairs = self.pairs(x, y)
        return pairs.direction_sum(weight * pairs.dist)

    @final
    def norm(self, x: Float[Tensor, "..."], u: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Riemannian length of the tangent vector u at x."""
        return self.inner(x, u, u).clamp_min(0).sqrt()


@dataclass(frozen=True)
class Similarity:
    """A map f of a manifold M to a manifold N under which all distances are in one proportion.

    With d_M = scale * d_N(f, f), a score on M is that of the kernel k(scale * r) on N. Its displacement pulls
    back by the inverse of the differential of f, and so does its gradient, divided by scale^2.
    """

    manifold: Manifold
    """N."""
    image: Callable[[Tensor], Tensor] = lambda x: x
    """f, which broadcasts over leading axes and keeps the dtype."""
    pullback: Callable[[Tensor, Tensor], Tensor] = lambda x, u: u
    """Inverse of the differential: maps points x of M and tangent vectors at f(x) to those at x."""
    scale: float = 1.0
    """Distances on M over distances on N."""


def scaling(unit: Manifold, radius: float) -> Similarity:
    """The division of points by a radius, to the manifold `unit`."""
    return Similarity(unit, lambda x: x / radius, lambda _, u: radius * u, radius)


def is_unit_sphere(manifold: Manifold, x: Float[Tensor, "n ..."]) -> bool:
    """Whether the manifold, for points of the shape of x_i [d], is S^{d-1} with the angle as distance.

    Tests the point functions, so that wrapped spheres count: the ends of the axes must be points, opposite
    ones pi apart and others pi / 2.
    """
    if manifold.point_ndim != 1 or x.shape[-1] < 2:
        return False
    axes = torch.eye(x.shape[-1], dtype=torch.float64, device=x.device)
    ends = torch.cat([axes, -axes])
    angles = manifold.dist(ends, -ends), 2 * manifold.dist(ends, ends.roll(1, 0))
    errors = [manifold.projx(2 * ends) - ends, *(angle - math.pi for angle in angles)]
    return all(bool((error.abs() < 1e-3).all()) for error in errors)


def check_clouds(manifold: Manifold, x: Tensor, y: Tensor) -> None:
    """Raise ValueError unless x [n, *point] and y [m, *point] are two clouds of points."""
    ndim = manifold.point_ndim + 1
    if x.ndim != ndim or y.ndim != ndim or x.shape[1:] != y.shape[1:]:
        raise ValueError(
            f"{manifold!r} has points of {manifold.point_ndim} axes: expected clouds [n, *point] and "
            f"[m, *point] with points of one shape, got {list(x.shape)} and {list(y.shape)}"
        )
    if manifold.point_shape is not None and x.shape[1:] != manifold.point_shape:
        raise ValueError(
            f"{manifold!r} has points of shape {list(manifold.point_shape)}, got clouds of shapes "
            f"{list(x.shape)} and {list(y.shape)}"
        )
    # Half precision has 3 digits: enough for a network, not for a distance.
    if x.dtype not in (torch.float32, torch.float64) or x.dtype != y.dtype:
        raise ValueError(f"both clouds must be float32 or both float64, got {x.dtype} and {y.dtype}")
