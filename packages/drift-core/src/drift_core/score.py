"""The one primitive: a log-sum-exp of kernels over reference points, with its gradient."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from drift_core.kernel import RadialKernel
from drift_core.manifold import Manifold
from drift_core.manifold.numerics import reusable, safe_inverse

DIRECTIONS = ("gradient", "displacement")

_BLOCK_CPU = 2**20
"""Pairs evaluated at once on a CPU: enough to share between cores, about 50 MB of intermediate arrays."""
_BLOCK_CUDA = 2**24
"""Pairs evaluated at once on a GPU: enough to fill it, about 1 GB of intermediate arrays."""
_REFERENCES = 4096
"""References evaluated at once by default."""

# glibc returns freed memory to the system at once until it has seen a larger block freed; every array
# over a block of pairs would then be faulted in page by page, which costs more than the arithmetic. One
# untouched allocation of its largest adaptive size (32 MB), freed here, raises that limit for good.
torch.empty(31 * 2**20, dtype=torch.uint8)


class Score(NamedTuple):
    """A kernel-smoothed log-density at n query points, and its gradient there (or mean displacement).

    Scores over disjoint sets of references are merged exactly by `merge_scores`.
    """

    log_density: Tensor
    """log sum_j exp(w_ij) k(x_i, y_j), shape [n]; -inf where every reference is excluded."""
    gradient: Tensor
    """Tangent vectors at the queries, shape [n, *point]; zero where every reference is excluded."""


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
    """Log-density of the kernel-smoothed references at the queries, and the direction towards them.

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
        chunk_size: references evaluated at once; memory is linear in n + m whatever it is.
        self_index: for each query the index of the reference that is the query itself, and is excluded;
            an index outside 0..m-1 excludes nothing.

    Raises:
        ValueError: shapes that do not fit, no reference, an unknown direction, chunk_size < 1.
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
    manifold.check_clouds(x, y)
    if len(y) == 0:
        raise ValueError(f"expected at least one reference, got references of shape {list(y.shape)}")
    if direction not in DIRECTIONS:
        raise ValueError(f"direction must be one of {', '.join(DIRECTIONS)}; got {direction!r}")
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")
    n, m = len(x), len(y)
    weights = None if log_weight is None else _expand(log_weight, n, m).to(x)
    columns = min(m, chunk_size or _REFERENCES)
    rows = max(1, (_BLOCK_CUDA if x.is_cuda else _BLOCK_CPU) // columns)
    done: list[list[Score]] = []
    for i in range(0, n, rows):
        merged: list[Score] = []
        for j in range(0, m, columns):
            logits = None if weights is None else weights[i : i + rows, j : j + columns]
            own = None if self_index is None else self_index[i : i + rows] - j
            block = _score_block(
                manifold, kernels, x[i : i + rows], y[j : j + columns], logits, own, direction
            )
            merged = [merge_scores(*pair) for pair in zip(merged, block, strict=True)] if merged else block
        done.append(merged)
    if not done:
        return [Score(x.new_zeros(0), torch.zeros_like(x)) for _ in kernels]
    return [Score(*map(torch.cat, zip(*scores, strict=True))) for scores in zip(*done, strict=True)]


def _score_block(
    manifold: Manifold,
    kernels: Sequence[RadialKernel],
    x: Tensor,
    y: Tensor,
    log_weight: Tensor | None,
    own: Tensor | None,
    direction: str,
) -> list[Score]:
    """The reduction over one block of pairs, for each kernel."""
    r, direction_sum = manifold.pairs(x, y)
    if own is not None:
        (row,) = torch.nonzero((own >= 0) & (own < len(y)), as_tuple=True)
        excluded = (row, own[row])
    scores = []
    for kernel in kernels:
        logits = kernel.log(r)
        if log_weight is not None:
            logits = logits + log_weight
        if own is not None:
            logits = logits.index_put(excluded, logits.new_tensor(-torch.inf))
        largest = logits.amax(dim=1)
        shift = largest.masked_fill(largest == -torch.inf, 0)
        excess = logits - shift[:, None]
        weight = torch.exp(excess, out=reusable(excess))
        total = weight.sum(dim=1)
        slope = kernel.dlog(r) if direction == "gradient" else r
        sums = direction_sum(torch.mul(weight, slope, out=reusable(weight)))
        # Dividing the sums, not the weights, saves a pass over all pairs.
        mass = safe_inverse(total) if direction == "displacement" else -safe_inverse(total)
        gradient = mass.reshape(-1, *(1,) * (x.ndim - 1)) * sums
        scores.append(Score(shift + total.log(), gradient))
    return scores


def merge_scores(*scores: Score) -> Score:
    """Score over the union of disjoint sets of references, from the scores over each of them.

    The log-density is the logsumexp of the parts, the gradient their softmax-weighted mean: the merge of
    partial attention (Dao et al. 2022, arXiv 2205.14135, section 3.1), exact and independent of the order.

    Raises:
        ValueError: no score, or scores of different queries.
    """
    if not scores:
        raise ValueError("merge_scores needs at least one Score, got none")
    shapes = {tuple(s.gradient.shape) for s in scores}
    if len(shapes) > 1:
        raise ValueError(f"scores must be of the same queries, got gradients of shapes {sorted(shapes)}")
    parts = torch.stack([s.log_density for s in scores])
    log_density = parts.logsumexp(dim=0)
    shift = log_density.masked_fill(log_density == -torch.inf, 0)
    share = (parts - shift).exp()
    gradients = torch.stack([s.gradient for s in scores])
    share = share.reshape(share.shape + (1,) * (gradients.ndim - share.ndim))
    return Score(log_density, (share * gradients).sum(0))


def effective_sample_size(
    manifold: Manifold,
    kernel: RadialKernel,
    x: Float[Tensor, "n ..."],
    y: Float[Tensor, "m ..."],
    *,
    log_weight: Float[Tensor, "..."] | None = None,
) -> Float[Tensor, " n"]:
    """Number of references that carry each query's score, 1 / sum_j p_ij^2, between 1 and m (Kish)."""
    logits = kernel.log(manifold.cdist(x, y))
    if log_weight is not None:
        logits = logits + _expand(log_weight, len(x), len(y))
    return 1 / logits.softmax(dim=1).square().sum(dim=1)


def _expand(log_weight: Tensor, n: int, m: int) -> Tensor:
    try:
        return log_weight.expand(n, m)
    except RuntimeError:
        raise ValueError(
            f"log_weight must broadcast to [n, m] = [{n}, {m}], got shape {list(log_weight.shape)}"
        ) from None
