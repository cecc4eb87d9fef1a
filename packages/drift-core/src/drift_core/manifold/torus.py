"""The flat torus."""

import math
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from drift_core.manifold.interface import Manifold, Pairs, Similarity
from drift_core.manifold.numerics import safe_inverse, safe_sqrt
from drift_core.manifold.power import Power
from drift_core.manifold.sphere import Sphere


@final
class Torus(Manifold):
    """Flat torus R^d / (2 pi Z)^d, d angles in radians; points are vectors [..., d] of angles in [-pi, pi].

    The distance is that of a product of d unit circles: squared angles, the short way round, sum over the
    axes. Differences are taken and wrapped in float64, where 2 pi is exact enough. An axis on which two
    points are exactly pi apart has no direction.
    """

    injectivity_radius = math.pi

    def __init__(self, d: int) -> None:
        if d < 1:
            raise ValueError(f"a torus needs at least one angle, got d = {d}")
        self.d, self.point_shape = d, (d,)
        self.similarity = Similarity(Power(Sphere()), _on_circles, _angular_velocity)

    def __repr__(self) -> str:
        return f"Torus({self.d})"

    @property
    def point_ndim(self) -> int:
        """Points are vectors."""
        return 1

    def projx(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """The angles plus multiples of 2 pi; those in [-pi, pi] stay as they are."""
        # Compared in the precision of x: in float32, pi is a little more than pi.
        return torch.where(x.abs() <= math.pi, x, _wrap(x.double()).to(x.dtype))

    def proju(self, x: Float[Tensor, "*#batch d"], u: Float[Tensor, "*#batch d"]) -> Float[Tensor, "*_ d"]:
        """Every vector is tangent."""
        return u

    def inner(
        self, x: Float[Tensor, "*#batch d"], u: Float[Tensor, "*#batch d"], v: Float[Tensor, "*#batch d"]
    ) -> Float[Tensor, "..."]:
        """Dot product of u and v."""
        return (u * v).sum(-1)

    def dist(self, x: Float[Tensor, "*#batch d"], y: Float[Tensor, "*#batch d"]) -> Float[Tensor, "..."]:
        """Length of the wrapped difference."""
        return _wrap(y.double() - x.double()).norm(dim=-1).to(x.dtype)

    def expmap(self, x: Float[Tensor, "*#batch d"], u: Float[Tensor, "*#batch d"]) -> Float[Tensor, "..."]:
        """Angles x + u, wrapped."""
        return _wrap(x.double() + u.double()).to(x.dtype)

    def logmap(self, x: Float[Tensor, "*#batch d"], y: Float[Tensor, "*#batch d"]) -> Float[Tensor, "..."]:
        """Difference y - x, wrapped; zero on axes where it is half a turn."""
        return _direction(_wrap(y.double() - x.double())).to(x.dtype)

    def pairs(self, x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Pairs:
        """Wrapped differences, one axis at a time; recomputed for the sums, to save memory."""
        axes = list(zip(x.double().T, y.double().T, strict=True))
        square = sum(_wrap(b - a[:, None]).square() for a, b in axes)
        r = safe_sqrt(torch.as_tensor(square)).to(x.dtype)

        def direction_sum(weight: Tensor) -> Tensor:
            w = (weight * safe_inverse(r)).double()
            return torch.stack([(w * _direction(_wrap(b - a[:, None]))).sum(1) for a, b in axes], 1).to(r)

        return Pairs(r, direction_sum)


def _wrap(angle: Tensor) -> Tensor:
    """Angle plus the multiple of 2 pi that brings it into [-pi, pi], where angles stay as they are."""
    return angle - 2 * math.pi * (angle / (2 * math.pi)).round()


def _direction(difference: Tensor) -> Tensor:
    """Wrapped differences, but zero where both ways round are of one length."""
    return difference.masked_fill(difference.abs() == math.pi, 0)


def _on_circles(x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d 2"]:
    return torch.stack([x.cos(), x.sin()], dim=-1)


def _angular_velocity(x: Float[Tensor, "*#batch d"], u: Float[Tensor, "*#batch d 2"]) -> Tensor:
    """Component of u along (-sin, cos)."""
    return u[..., 1] * x.cos() - u[..., 0] * x.sin()
