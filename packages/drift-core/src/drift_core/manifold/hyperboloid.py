"""Hyperbolic space in the Lorentz model."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from drift_core.manifold.interface import Manifold, Pairs
from drift_core.manifold.numerics import direct_cdist, safe_inverse, safe_ratio, safe_sqrt


def _lorentz(u: Tensor, v: Tensor) -> Tensor:
    """Lorentz product -u_0 v_0 + sum_i u_i v_i."""
    product = u * v
    return product[..., 1:].sum(-1) - product[..., 0]


def _lift(x: Tensor) -> Tensor:
    """Float64 point with the time coordinate that its space coordinates imply, sqrt(1 + |x|^2)."""
    space = x[..., 1:].double()
    time = (1 + space.square().sum(-1, keepdim=True)).sqrt()
    return torch.cat([time, space], dim=-1)


def _tangent(x: Tensor, u: Tensor) -> Tensor:
    """Part of u that is Lorentz-orthogonal to x."""
    return u + _lorentz(x, u)[..., None] * x


@final
class Hyperboloid(Manifold):
    """Hyperbolic space H^{d-1}, curvature -1, as unit vectors [..., d] of Lorentz norm -1, time first.

    Distances are 2 asinh(sqrt(<x-y, x-y>_L) / 2), never arcosh, and everything is computed in float64:
    coordinates grow like exp(radius) and their rounding in float32 would swamp small differences.
    """

    def __repr__(self) -> str:
        return "Hyperboloid()"

    @property
    def point_ndim(self) -> int:
        """Points are vectors."""
        return 1

    def projx(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Point with the same space coordinates and the time coordinate sqrt(1 + |space|^2)."""
        return _lift(x).to(x.dtype)

    def proju(self, x: Float[Tensor, "*#batch d"], u: Float[Tensor, "*#batch d"]) -> Float[Tensor, "*_ d"]:
        """Tangent part u + <x, u>_L x."""
        return _tangent(_lift(x), u.double()).to(u.dtype)

    def inner(
        self, x: Float[Tensor, "*#batch d"], u: Float[Tensor, "*#batch d"], v: Float[Tensor, "*#batch d"]
    ) -> Float[Tensor, "..."]:
        """Lorentz product of u and v, positive definite on tangent vectors."""
        base = _lift(x)
        return _lorentz(_tangent(base, u.double()), _tangent(base, v.double())).to(u.dtype)

    def dist(self, x: Float[Tensor, "*#batch d"], y: Float[Tensor, "*#batch d"]) -> Float[Tensor, "..."]:
        """Hyperbolic distance between x and y."""
        gap = _lift(x) - _lift(y)
        return (2 * torch.asinh(safe_sqrt(_lorentz(gap, gap)) / 2)).to(x.dtype)

    def expmap(self, x: Float[Tensor, "*#batch d"], u: Float[Tensor, "*#batch d"]) -> Float[Tensor, "..."]:
        """Point cosh|u| x + sinh|u| u / |u|."""
        base = _lift(x)
        step = _tangent(base, u.double())
        length = safe_sqrt(_lorentz(step, step))[..., None]
        slope = torch.where(length > 0, safe_ratio(length.sinh(), length), 1.0)
        # The time coordinate is computed from the rounded space coordinates, so that the norm is -1.
        return self.projx((length.cosh() * base + slope * step).to(x.dtype))

    def logmap(self, x: Float[Tensor, "*#batch d"], y: Float[Tensor, "*#batch d"]) -> Float[Tensor, "..."]:
        """Tangent vector at x towards y, as long as their distance."""
        base, end = _lift(x), _lift(y)
        gap = end - base
        length = 2 * torch.asinh(safe_sqrt(_lorentz(gap, gap)) / 2)
        return (safe_ratio(length, length.sinh())[..., None] * _tangent(base, gap)).to(x.dtype)

    def pairs(self, x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Pairs:
        """Distances from coordinate differences; sums of directions as on the sphere.

        log_x(y) / r = (y - cosh(r) x) / sinh(r), so the sum over y is the tangent part of
        sum_j (w_j / sinh r_j) y_j.
        """
        base, end = _lift(x), _lift(y)
        space = direct_cdist(base[:, 1:], end[:, 1:])
        time = base[:, :1] - end[:, 0]
        # |space| >= |time| on the hyperboloid; the factored difference of squares cancels least.
        half = safe_sqrt((space - time) * (space + time)) / 2
        r = 2 * torch.asinh(half)

        def direction_sum(weight: Tensor) -> Tensor:
            # sinh(r) = 2 sinh(r/2) cosh(r/2)
            sinh = 2 * half * (1 + half.square()).sqrt()
            return _tangent(base, (weight.double() * safe_inverse(sinh)) @ end).to(x.dtype)

        return Pairs(r.to(x.dtype), direction_sum)
