"""Hyperbolic space in the Lorentz model."""

import math
from typing import final

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from drift_core.arguments import number
from drift_core.manifold.interface import Manifold, Pairs, scaling
from drift_core.manifold.numerics import direct_cdist, safe_inverse, safe_ratio, safe_sqrt


def _lorentz(u: Tensor, v: Tensor) -> Tensor:
    """Lorentz product -u_0 v_0 + sum_i u_i v_i."""
    product = u * v
    return product[..., 1:].sum(-1) - product[..., 0]


def _lift(x: Tensor, radius: float = 1.0) -> Tensor:
    """Float64 point x / radius with the time coordinate that its space coordinates imply, sqrt(1 + |x|^2)."""
    space = x[..., 1:].double() / radius
    time = (1 + space.square().sum(-1, keepdim=True)).sqrt()
    return torch.cat([time, space], dim=-1)


def _tangent(x: Tensor, u: Tensor) -> Tensor:
    """Part of u that is Lorentz-orthogonal to x."""
    return u + _lorentz(x, u)[..., None] * x


@final
class Hyperboloid(Manifold):
    """Hyperbolic space H^{d-1} of a curvature -1 / R^2, by default -1: vectors [..., d], time first.

    Their Lorentz norm is -R^2. Distances are 2 R asinh(sqrt(<x-y, x-y>_L) / (2 R)), never arcosh, and
    differences are taken in float64: coordinates grow like exp(distance from the origin / R), and their
    rounding in float32 would swamp small differences.
    """

    def __init__(self, curvature: float = -1.0) -> None:
        self.curvature = number(curvature)
        if not -math.inf < self.curvature < 0:
            raise ValueError(f"curvature must be a negative finite number, got {curvature!r}")
        self._radius = (-self.curvature) ** -0.5
        if self._radius != 1:
            self.similarity = scaling(Hyperboloid(), self._radius)

    def __repr__(self) -> str:
        return "Hyperboloid()" if self.curvature == -1 else f"Hyperboloid({self.curvature:g})"

    @property
    def point_ndim(self) -> int:
        """Points are vectors."""
        return 1

    def projx(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Point with the same space coordinates and the time coordinate sqrt(R^2 + |space|^2)."""
        return torch.cat([(self._radius * _lift(x, self._radius)[..., :1]).to(x.dtype), x[..., 1:]], dim=-1)

    def proju(self, x: Float[Tensor, "*#batch d"], u: Float[Tensor, "*#batch d"]) -> Float[Tensor, "*_ d"]:
        """Tangent part u + <x, u>_L x / R^2."""
        return _tangent(_lift(x, self._radius), u.double()).to(u.dtype)

    def inner(
        self, x: Float[Tensor, "*#batch d"], u: Float[Tensor, "*#batch d"], v: Float[Tensor, "*#batch d"]
    ) -> Float[Tensor, "..."]:
        """Lorentz product of u and v, positive definite on tangent vectors."""
        base = _lift(x, self._radius)
        return _lorentz(_tangent(base, u.double()), _tangent(base, v.double())).to(u.dtype)

    def egrad2rgrad(
        self, x: Float[Tensor, "*#batch d"], u: Float[Tensor, "*#batch d"]
    ) -> Float[Tensor, "..."]:
        """Tangent part of u with its time coordinate negated, the gradient for the Lorentz product."""
        return self.proju(x, torch.cat([-u[..., :1], u[..., 1:]], dim=-1))

    def dist(self, x: Float[Tensor, "*#batch d"], y: Float[Tensor, "*#batch d"]) -> Float[Tensor, "..."]:
        """Hyperbolic distance between x and y."""
        gap = _lift(x, self._radius) - _lift(y, self._radius)
        return (2 * self._radius * torch.asinh(safe_sqrt(_lorentz(gap, gap)) / 2)).to(x.dtype)

    def expmap(self, x: Float[Tensor, "*#batch d"], u: Float[Tensor, "*#batch d"]) -> Float[Tensor, "..."]:
        """Point cosh(a) x + sinh(a) / a u, with a = |u| / R."""
        base = _lift(x, self._radius)
        step = _tangent(base, u.double() / self._radius)
        length = safe_sqrt(_lorentz(step, step))[..., None]
        slope = torch.where(length > 0, safe_ratio(length.sinh(), length), 1.0)
        # The time coordinate is computed from the rounded space coordinates, so that the norm is -R^2.
        return self.projx((self._radius * (length.cosh() * base + slope * step)).to(x.dtype))

    def logmap(self, x: Float[Tensor, "*#batch d"], y: Float[Tensor, "*#batch d"]) -> Float[Tensor, "..."]:
        """Tangent vector at x pointing to y, whose length is their distance."""
        base, end = _lift(x, self._radius), _lift(y, self._radius)
        gap = end - base
        length = 2 * torch.asinh(safe_sqrt(_lorentz(gap, gap)) / 2)
        slope = self._radius * safe_ratio(length, length.sinh())
        return (slope[..., None] * _tangent(base, gap)).to(x.dtype)

    def pairs(self, x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Pairs:
        """Distances, and sums of directions as on the sphere.

        log_x(y) / r = (y - cosh(r) x) / sinh(r), so the sum over y is the tangent part of
        sum_j (w_j / sinh r_j) y_j: one matrix product.
        """
        base, end = _lift(x, self._radius), _lift(y, self._radius)
        half = _half_chords(base, end, x.dtype)

        def direction_sum(weight: Tensor) -> Tensor:
            # sinh(r) = 2 sinh(r/2) cosh(r/2)
            sinh = 2 * half * torch.addcmul(half.new_ones(()), half, half).sqrt()
            return _tangent(base, (weight * safe_inverse(sinh)).double() @ end).to(x.dtype)

        return Pairs(2 * self._radius * _asinh(half), direction_sum)


def _half_chords(x: Float64[Tensor, "n d"], y: Float64[Tensor, "m d"], dtype: torch.dtype) -> Tensor:
    """Half the Lorentz length of x_i - y_j, which is sinh(r / 2), in the precision `dtype` of the points.

    For float32 points it comes from a float64 product, sinh^2(r/2) = (-<x, y>_L - 1) / 2: its rounding is
    a quarter of the spacing of float32 points, wherever they are. Float64 points are subtracted.
    """
    if dtype == torch.float64:
        space, time = direct_cdist(x[:, 1:], y[:, 1:]), x[:, :1] - y[:, 0]
        # |space| >= |time| on the hyperboloid; the factored difference of squares cancels least.
        return safe_sqrt((space - time) * (space + time)) / 2
    mirrored = torch.cat([x[:, :1], -x[:, 1:]], dim=1) / 2
    square = torch.addmm(x.new_full((), -0.5), mirrored, y.T).to(dtype)
    # A coincident pair is 2e-8 apart, in a direction of length 1e-8.
    return square.clamp_min(1e-16).sqrt()


def _asinh(h: Float[Tensor, "n m"]) -> Float[Tensor, "n m"]:
    """asinh(h) for h >= 0 to rounding; torch's own is not vectorised on CPUs and takes five times as long."""
    square = h * h
    return torch.log1p(h + square / (1 + (1 + square).sqrt()))
