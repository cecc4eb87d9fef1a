"""Distances and directions of all pairs of two float32 clouds on the orthant.

With z = (1 - cos theta) / 2 = sin^2(theta / 2), the angle is 2 asin(sqrt(z)) and theta / sin(theta) is
asin(sqrt(z)) / sqrt(z - z^2). z is one float64 matrix product and keeps 16 decimals, so that near-coincident
points keep their precision; everything after it is float32. On a CPU an arcsine costs three multiply-adds,
less than an equivalent polynomial in 1 - cos theta (degree 7 for float32).
"""

from collections.abc import Iterator
from functools import partial

import torch
from drift_core import Pairs
from drift_core.manifold.numerics import safe_inverse, shortened
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize, pad

_PAIRS_CPU = 2**16
"""Pairs in one array on a CPU: a few such arrays fit the second-level cache."""
_PAIRS_CUDA = 2**24
"""Pairs in one array on a GPU: enough to fill it."""
_POSITIONS = 16
"""Positions whose squared angles are added in float32 before they join the float64 sum."""

_Tile = tuple[slice, slice, Tensor, Tensor]


def fused_pairs(x: Float[Tensor, "n L K"], y: Float[Tensor, "m L K"]) -> Pairs:
    """Distances and weighted directions between float32 points of the orthant; no autograd.

    Allocates a few [n, m] arrays, and float64 copies of a few positions of the points at a time.
    """
    r = torch.zeros(len(x), len(y), dtype=torch.float64, device=x.device)
    for _, rows, base, other in _tiles(x, y):
        square = torch.zeros_like(r[rows], dtype=x.dtype)
        for b, o in zip(base, other, strict=True):
            half = (b @ o.T).to(x.dtype).sqrt_().asin_()
            square.addcmul_(half, half, value=4)
        r[rows] += square
    dist = r.sqrt_().to(x.dtype)

    def direction_sum(weight: Tensor) -> Tensor:
        a = weight * safe_inverse(dist)
        sums = torch.empty_like(x)
        for positions, rows, base, other in _tiles(x, y):
            parts = [_directions(a[rows], b, o) for b, o in zip(base, other, strict=True)]
            sums[rows, positions] = torch.stack(parts, dim=1).to(x.dtype)
        return sums

    return Pairs(dist, direction_sum)


def fused_position_pairs(x: Float[Tensor, "n L K"], y: Float[Tensor, "m L K"]) -> Iterator[Pairs]:
    """Angles and unit directions of float32 points of the orthant, one position after the other; no autograd.

    Allocates a few [n, m] arrays at a time.
    """
    for base, other in zip(*_lifted(x, y), strict=True):
        z = (base @ other.T).to(x.dtype)
        yield Pairs(z.sqrt().asin_().mul_(2), partial(_unit_directions, z, base, other))


def _unit_directions(
    z: Float[Tensor, "n m"], base: Float[Tensor, "n K1"], other: Float[Tensor, "m K1"], weight: Tensor
) -> Float[Tensor, "n K"]:
    """sum_j w_ij (y_j - cos theta_ij x) / sin theta_ij at one position."""
    half_sine = torch.addcmul(z, z, z, value=-1).sqrt_()
    return _tangent_sum(weight / half_sine, base, other, -1).to(z.dtype)


def _directions(
    a: Float[Tensor, "n m"], base: Float[Tensor, "n K1"], other: Float[Tensor, "m K1"]
) -> Float[Tensor, "n K"]:
    """sum_j a_ij log_x(y_j) at one position: the tangent part of sum_j (a_ij theta_ij / sin theta_ij) y_j."""
    z = (base @ other.T).to(a.dtype)
    half = z.sqrt().asin_()
    weight = half.div_(torch.addcmul(z, z, z, value=-1, out=z).sqrt_()).mul_(a)
    return _tangent_sum(weight, base, other, -2)


def _tangent_sum(weight: Tensor, base: Tensor, other: Tensor, scale: int) -> Tensor:
    """Tangent part at x of a weighted sum of lifted y, which hold -y / 2, times a scale."""
    total = (weight.double() @ other)[:, :-1] * scale
    x = base[:, :-1]
    return total - (total * x).sum(-1, keepdim=True) * x


def _tiles(x: Float[Tensor, "n L K"], y: Float[Tensor, "m L K"]) -> Iterator[_Tile]:
    """Positions, rows of x, and there the lifted points [L, n, K + 1] and [L, m, K + 1]."""
    n, length = x.shape[:2]
    count = max(1, (_PAIRS_CUDA if x.is_cuda else _PAIRS_CPU) // max(1, len(y)))
    for first in range(0, length, _POSITIONS):
        positions = slice(first, first + _POSITIONS)
        base, other = _lifted(x[:, positions], y[:, positions])
        for i in range(0, n, count):
            yield positions, slice(i, i + count), base[:, i : i + count], other


def _lifted(
    x: Float[Tensor, "n L K"], y: Float[Tensor, "m L K"]
) -> tuple[Float[Tensor, "L n K1"], Float[Tensor, "L m K1"]]:
    """Float64 points with an additional coordinate, whose inner products are z = (1 - cos theta) / 2."""
    base = shortened(_unit(x))
    return pad(base, (0, 1), value=1.0), pad(_unit(y) * -0.5, (0, 1), value=0.5)


def _unit(x: Float[Tensor, "n L K"]) -> Float[Tensor, "L n K"]:
    return normalize(x.transpose(0, 1).double(), dim=-1)
