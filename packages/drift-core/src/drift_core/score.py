"""The core computation: log-sum-exp of kernels over reference points, with its gradient."""

from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from drift_core.engine import fused
from drift_core.kernel import RadialKernel
from drift_core.manifold import Manifold, Pairs
from drift_core.manifold.interface import check_clouds
from drift_core.manifold.numerics import reusable
from drift_core.reduction import (
    Score,
    check_kernels,
    check_references,
    check_request,
    expand_log_weight,
    reduce_blocks,
    softmax_score,
    split_log_weight,
)

_BLOCK_CPU = 2**20
"""Pairs evaluated at once on a CPU: enough to share between cores, about 50 MB of intermediate arrays."""
_BLOCK_CUDA = 2**24
"""Pairs evaluated at once on a GPU: enough to fill it, about 1 GB of intermediate arrays."""
_REFERENCES = 4096
"""References evaluated at once by default."""

# glibc returns freed memory to the system at once until it has seen a larger block freed; every array
# over a block of pairs would then be faulted in page by page, which costs more than the arithmetic. One
# untouched allocation of its largest adaptive size (32 MB), freed here, raises that limit permanently.
torch.empty(31 * 2**20, dtype=torch.uint8)


def smoothed_score(
    manifold: Manifold,
    kernel: RadialKernel,
    x: Float[Tensor, "n ..."],
    y: Float[Tensor, "m ..."],
    *,
    log_weight: Float[Tensor, "..."] | None = None,
    direction: str = "gradient",
    chunk_size: int | None = None,
    self_index: Int[Tensor, " n"] | None = None,
) -> Score:
    """Log-density of the kernel-smoothed references at the queries, and its gradient.

    With p_ij = softmax_j(w_ij + log k(r_ij)) and r_ij = d(x_i, y_j), the gradient is
    sum_j p_ij dlog k(r_ij) grad r_ij, with grad r_ij = -log_{x_i}(y_j) / r_ij, which is
    grad log sum_j exp(w_ij) k(x_i, y_j); the displacement is sum_j p_ij log_{x_i}(y_j), the mean shift.
    Everything is computed in log space, so that a row whose weights underflow still follows its nearest
    reference. Coincident pairs (r = 0) have no direction and contribute to the density only.

    Args:
        manifold: the geometry of the points.
        kernel: a radial kernel on it.
        x: queries, shape [n, *point].
        y: references, shape [m, *point], m >= 1.
        log_weight: w, broadcast to [n, m]; -inf excludes a pair.
        direction: "gradient" (kernel gradient) or "displacement" (mean shift).
        chunk_size: references evaluated at once; memory is linear in n + m for every value.
        self_index: index of each query among the references, which is excluded; an index outside 0..m-1
            excludes nothing.

    Raises:
        ValueError: mismatched shapes, no reference, an unknown direction, chunk_size < 1, a kernel that
            is not defined on the manifold.
    """
    (score,) = smoothed_scores(
        manifold,
        (kernel,),
        x,
        y,
        log_weight=log_weight,
        direction=direction,
        chunk_size=chunk_size,
        self_index=self_index,
    )
    return score


def smoothed_scores(
    manifold: Manifold,
    kernels: Sequence[RadialKernel],
    x: Float[Tensor, "n ..."],
    y: Float[Tensor, "m ..."],
    *,
    log_weight: Float[Tensor, "..."] | None = None,
    direction: str = "gradient",
    chunk_size: int | None = None,
    self_index: Int[Tensor, " n"] | None = None,
) -> list[Score]:
    """`smoothed_score` for each of several kernels, which share the distances between all pairs."""
    check_clouds(manifold, x, y)
    check_kernels(manifold, kernels, x)
    check_request(y, direction, chunk_size)
    weights = expand_log_weight(log_weight, x, len(y))
    if len(x) == 0:
        return [Score(x.new_zeros(0), torch.zeros_like(x)) for _ in kernels]
    result = fused(
        manifold,
        kernels,
        x,
        y,
        log_weight=weights,
        self_index=self_index,
        displacement=direction == "displacement",
    )
    if result is not None:
        return result.scores()
    columns = min(len(y), chunk_size or _REFERENCES)
    rows = max(1, (_BLOCK_CUDA if x.is_cuda else _BLOCK_CPU) // columns)
    return reduce_blocks(
        partial(_score_block, manifold, kernels, direction),
        torch.split(x, rows),
        torch.split(y, columns),
        split_log_weight(weights, (len(x), len(y)), rows, columns, self_index),
    )


def _score_block(
    manifold: Manifold,
    kernels: Sequence[RadialKernel],
    direction: str,
    x: Tensor,
    y: Tensor,
    log_weight: Tensor | None,
) -> list[Score]:
    """The reduction over one block of pairs, for each kernel."""
    pairs = manifold.pairs(x, y)
    return [pairs_score(kernel, pairs, direction, log_weight) for kernel in kernels]


def pairs_score(
    kernel: RadialKernel, pairs: Pairs, direction: str, log_weight: Tensor | None = None
) -> Score:
    """Score of the kernel over pairs of queries and references [n, m], with log-weights of the same shape."""
    r, direction_sum = pairs

    def sums(weight: Tensor) -> Tensor:
        slope = kernel.dlog(r) if direction == "gradient" else r
        total = direction_sum(torch.mul(weight, slope, out=reusable(weight)))
        return -total if direction == "gradient" else total

    logits = kernel.log(r)
    return softmax_score(logits if log_weight is None else logits + log_weight, sums)


def smoothed_log_density(
    manifold: Manifold,
    kernel: RadialKernel,
    x: Float[Tensor, "n ..."],
    y: Float[Tensor, "m ..."],
    *,
    log_weight: Float[Tensor, "..."] | None = None,
    self_index: Int[Tensor, " n"] | None = None,
) -> Float[Tensor, " n"]:
    """The log-density of `smoothed_score` without its gradient, log sum_j exp(w_ij) k(x_i, y_j).

    Raises ValueError as `smoothed_score`.
    """
    (log_density,) = smoothed_log_densities(
        manifold, (kernel,), x, y, log_weight=log_weight, self_index=self_index
    )
    return log_density


def smoothed_log_densities(
    manifold: Manifold,
    kernels: Sequence[RadialKernel],
    x: Float[Tensor, "n ..."],
    y: Float[Tensor, "m ..."],
    *,
    log_weight: Float[Tensor, "..."] | None = None,
    self_index: Int[Tensor, " n"] | None = None,
) -> Float[Tensor, "kernels n"]:
    """`smoothed_log_density` for each of several kernels, which share the distances between all pairs."""
    weights = _checked_weights(manifold, kernels, x, y, log_weight)
    result = fused(manifold, kernels, x, y, log_weight=weights, self_index=self_index, gradient=False)
    if result is not None:
        return result.log_density
    scores = smoothed_scores(manifold, kernels, x, y, log_weight=log_weight, self_index=self_index)
    return torch.stack([score.log_density for score in scores])


def effective_sample_size(
    manifold: Manifold,
    kernel: RadialKernel,
    x: Float[Tensor, "n ..."],
    y: Float[Tensor, "m ..."],
    *,
    log_weight: Float[Tensor, "..."] | None = None,
) -> Float[Tensor, " n"]:
    """Effective number of references of each query, 1 / sum_j p_ij^2, between 1 and m (Kish).

    Raises ValueError as `smoothed_score`.
    """
    weights = _checked_weights(manifold, (kernel,), x, y, log_weight)
    if len(x) == 0:
        return x.new_zeros(0)
    result = fused(manifold, (kernel,), x, y, log_weight=weights, gradient=False)
    if result is not None:
        return result.sample_size[0]
    logits = kernel.log(manifold.cdist(x, y))
    if weights is not None:
        logits = logits + weights
    return 1 / logits.softmax(dim=1).square().sum(dim=1)


def _checked_weights(
    manifold: Manifold, kernels: Sequence[RadialKernel], x: Tensor, y: Tensor, log_weight: Tensor | None
) -> Tensor | None:
    """Log-weights as [n, m]. Raises ValueError as `smoothed_score`."""
    check_clouds(manifold, x, y)
    check_kernels(manifold, kernels, x)
    check_references(y)
    return expand_log_weight(log_weight, x, len(y))
