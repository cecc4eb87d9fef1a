"""Product kernels over positions, k(x, y) = prod_l k1(theta_l), between soft points."""

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from drift_core import Pairs, RadialKernel, Score, Sphere
from drift_core.engine import fused
from drift_core.manifold.interface import check_clouds
from drift_core.reduction import (
    check_kernels,
    check_request,
    expand_log_weight,
    reduce_blocks,
    softmax_score,
    split_log_weight,
)
from jaxtyping import Float, Integer
from torch import Tensor

from drift_simplex.blocks import block_shape
from drift_simplex.geometry import FisherRao
from drift_simplex.pairs import fused_position_pairs

_SPHERE = Sphere()


def product_score(
    kernel: RadialKernel,
    x: Float[Tensor, "n ..."],
    y: Float[Tensor, "m ..."],
    *,
    log_weight: Float[Tensor, "..."] | None = None,
    direction: str = "gradient",
    chunk_size: int | None = None,
    self_index: Integer[Tensor, " n"] | None = None,
) -> Score:
    """Score of the product kernel log k(x, y) = sum_l log k1(theta_l), theta_l the angle at position l.

    log k adds up over positions, whereas the total distance of `smoothed_score` grows like the root of the
    number of positions that differ. For Gaussian kernels the two are equal.

    Args:
        kernel: the kernel k1 of the angle at one position.
        x: queries, shape [n, L, K].
        y: references, shape [m, L, K], m >= 1; for one-hot references see `onehot_score`.
        log_weight: w, broadcast to [n, m]; -inf excludes a pair.
        direction: "gradient" (of the log-density) or "displacement" (the weighted mean of log_x(y)).
        chunk_size: references evaluated at once; memory is linear in n + m for every value.
        self_index: index of each query among the references, which is excluded; an index outside 0..m-1
            excludes nothing.

    Raises:
        ValueError: mismatched shapes, no reference, an unknown direction, chunk_size < 1, a kernel that
            is not defined on S^{K-1}.
    """
    (score,) = product_scores(
        (kernel,),
        x,
        y,
        log_weight=log_weight,
        direction=direction,
        chunk_size=chunk_size,
        self_index=self_index,
    )
    return score


def product_scores(
    kernels: Sequence[RadialKernel],
    x: Float[Tensor, "n ..."],
    y: Float[Tensor, "m ..."],
    *,
    log_weight: Float[Tensor, "..."] | None = None,
    direction: str = "gradient",
    chunk_size: int | None = None,
    self_index: Integer[Tensor, " n"] | None = None,
) -> list[Score]:
    """`product_score` for each of several kernels, which share the angles."""
    check_clouds(FisherRao(), x, y)
    check_kernels(_SPHERE, kernels, x[:, 0])
    check_request(y, direction, chunk_size)
    weights = expand_log_weight(log_weight, x, len(y))
    if len(x) == 0:
        return [Score(x.new_zeros(0), torch.zeros_like(x)) for _ in kernels]
    result = fused(
        FisherRao(),
        kernels,
        x,
        y,
        log_weight=weights,
        self_index=self_index,
        displacement=direction == "displacement",
        product=True,
    )
    if result is not None:
        return result.scores()
    rows, columns = block_shape(x, len(y), chunk_size)
    return reduce_blocks(
        partial(_block, kernels, direction),
        torch.split(x, rows),
        torch.split(y, columns),
        split_log_weight(weights, (len(x), len(y)), rows, columns, self_index),
    )


def _block(
    kernels: Sequence[RadialKernel], direction: str, x: Tensor, y: Tensor, log_weight: Tensor | None
) -> list[Score]:
    logits = [torch.zeros(len(x), len(y), dtype=torch.float64, device=x.device) for _ in kernels]
    for pairs in _positions(x, y):
        for total, kernel in zip(logits, kernels, strict=True):
            total += kernel.log(pairs.dist)
    if log_weight is not None:
        logits = [total + log_weight for total in logits]
    return [
        softmax_score(total.to(x.dtype), partial(_direction_sum, kernel, direction, x, y))
        for total, kernel in zip(logits, kernels, strict=True)
    ]


def _direction_sum(kernel: RadialKernel, direction: str, x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """Weighted sums of the kernel's gradients (or of log_x(y)), one position at a time."""
    sums = []
    for theta, direction_sum in _positions(x, y):
        sums.append(direction_sum(weight * (theta if direction == "displacement" else -kernel.dlog(theta))))
    return torch.stack(sums, dim=1)


def _positions(x: Tensor, y: Tensor) -> Iterator[Pairs]:
    """Angles and directions of all pairs at one position after the other."""
    if x.dtype == torch.float32:
        return fused_position_pairs(x, y)
    return (_SPHERE.pairs(a, b) for a, b in zip(x.unbind(1), y.unbind(1), strict=True))
