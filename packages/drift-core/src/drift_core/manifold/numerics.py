"""Distances without cancellation, on which all manifolds are built.

Sums of directions are accumulated in float64 and then projected to the tangent space: near a coincident
pair a direction is a small difference divided by a small distance, and in float32 the rounding of the
sum would be as large as what the projection leaves.
"""

import torch
from jaxtyping import Float, Float64
from torch import Tensor


def reusable(t: Tensor) -> Tensor | None:
    """Buffer for the `out` argument of the next operation: t itself, unless autograd may still need it.

    Arrays over all pairs dominate the cost of a field, and allocating each anew is a third of it.
    """
    return None if t.requires_grad else t


def safe_sqrt(a: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Square root with sqrt(a) = 0 and derivative 0 wherever a <= 0."""
    positive = a > 0
    return torch.where(positive, a, torch.ones_like(a)).sqrt() * positive


def safe_ratio(a: Float[Tensor, "*a"], b: Float[Tensor, "*b"]) -> Tensor:
    """Ratio a / b, and 0 with derivative 0 wherever b = 0."""
    vanishes = b == 0
    return (a / b.masked_fill(vanishes, 1)).masked_fill(vanishes, 0)


def safe_inverse(a: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Inverse 1 / a of a >= 0, and 0 where a = 0, in few passes and without masks."""
    return a / (a * a + torch.finfo(a.dtype).tiny)


def shortened(x: Float64[Tensor, "*batch d"]) -> Float64[Tensor, "*batch d"]:
    """Unit vectors, shortened by a few roundings of a sum of d terms.

    Rounding then cannot raise their inner products with unit vectors to 1, so that no sine is zero: a
    coincident pair gets an angle of 3e-8 (d = 3) and a direction of length 1e-8.
    """
    return x * (1 - (x.shape[-1] + 4) * torch.finfo(x.dtype).eps)


def direct_cdist(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    """Euclidean distances |x_i - y_j|, coordinate by coordinate."""
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


def euclidean_cdist(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    """Euclidean distances |x_i - y_j|, accurate for near-coincident points far from the origin.

    In float32 the quadratic expansion is a float64 matrix product, which loses nothing that float32
    points can resolve; float64 points, and few dimensions, are subtracted coordinate by coordinate.
    """
    if x.dtype == torch.float64 or x.shape[-1] <= 8:
        return direct_cdist(x, y)
    centre = y.double().mean(0)
    x64, y64 = x.double() - centre, y.double() - centre
    square = x64.square().sum(-1)[:, None] + y64.square().sum(-1) - 2 * (x64 @ y64.T)
    return safe_sqrt(square.to(x.dtype))
