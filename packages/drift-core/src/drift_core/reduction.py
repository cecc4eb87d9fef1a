"""Scores: log-densities with gradients, computed in blocks of queries and references, and merged."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from drift_core.kernel import RadialKernel
from drift_core.manifold import Manifold
from drift_core.manifold.interface import is_unit_sphere
from drift_core.manifold.numerics import reusable, safe_inverse

DIRECTIONS = ("gradient", "displacement")

Q = TypeVar("Q")
R = TypeVar("R")


class Score(NamedTuple):
    """A kernel-smoothed log-density at n query points, and its gradient there (or mean displacement).

    Scores over disjoint sets of references are merged exactly by `merge_scores`.
    """

    log_density: Tensor
    """log sum_j exp(w_ij) k(x_i, y_j), shape [n]; -inf where every reference is excluded."""
    gradient: Tensor
    """Tangent vectors at the queries, shape [n, *point]; zero where every reference is excluded."""


def check_request(references: Tensor, direction: str, chunk_size: int | None) -> None:
    """Raise ValueError for no reference, an unknown direction, or chunk_size < 1."""
    check_references(references)
    if direction not in DIRECTIONS:
        raise ValueError(f"direction must be one of {', '.join(DIRECTIONS)}; got {direction!r}")
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")


def check_references(references: Tensor) -> None:
    """Raise ValueError for no reference."""
    if len(references) == 0:
        raise ValueError(f"expected at least one reference, got references of shape {list(references.shape)}")


def check_kernels(manifold: Manifold, kernels: Iterable[RadialKernel], x: Float[Tensor, "n ..."]) -> None:
    """Raise ValueError for a kernel that is not defined on the manifold of the points x."""
    for kernel in kernels:
        dim = kernel.sphere_dim
        if dim is not None and not (x.shape[-1] == dim + 1 and is_unit_sphere(manifold, x)):
            raise ValueError(
                f"{kernel!r} is defined on the unit sphere S^{dim} in R^{dim + 1} alone, "
                f"got {manifold!r} with points of shape {list(x.shape[1:])}"
            )


def expand_log_weight(log_weight: Tensor | None, x: Tensor, m: int) -> Tensor | None:
    """Log-weights as [n, m] in the dtype of the queries x; raises ValueError if they do not broadcast."""
    if log_weight is None:
        return None
    try:
        return log_weight.to(x).expand(len(x), m)
    except RuntimeError:
        raise ValueError(
            f"log_weight must broadcast to [n, m] = [{len(x)}, {m}], got shape {list(log_weight.shape)}"
        ) from None


def softmax_score(logits: Float[Tensor, "n m"], direction_sum: Callable[[Tensor], Tensor]) -> Score:
    """Score with log-density logsumexp_j of the logits, and a gradient linear in their softmax.

    `direction_sum` maps weights [n, m] to [n, ...]; a row whose logits are all -inf has zero weights.
    """
    largest = logits.amax(dim=1)
    shift = largest.masked_fill(largest == -torch.inf, 0)
    excess = logits - shift[:, None]
    weight = torch.exp(excess, out=reusable(excess))
    total = weight.sum(dim=1)
    sums = direction_sum(weight)
    # Dividing the sums, not the weights, saves a pass over all pairs.
    mass = safe_inverse(total).reshape(-1, *(1,) * (sums.ndim - 1))
    return Score(shift + total.log(), mass * sums)


def reduce_blocks(
    block: Callable[[Q, R, Tensor | None], list[Score]],
    queries: Sequence[Q],
    references: Iterable[R],
    log_weights: Iterable[Iterable[Tensor | None]],
) -> list[Score]:
    """Scores of all queries against all references, from a function of one block of each.

    Args:
        block: maps queries, references and their log-weights to one score per kernel.
        queries: blocks of queries, at least one.
        references: blocks of references, at least one; taken one at a time.
        log_weights: for each block of references, for each block of queries, log-weights or None.
    """
    merged: list[list[Score]] = [[] for _ in queries]
    for reference, weights in zip(references, log_weights, strict=True):
        for i, (query, weight) in enumerate(zip(queries, weights, strict=True)):
            new = block(query, reference, weight)
            merged[i] = [merge_scores(*s) for s in zip(merged[i], new, strict=True)] if merged[i] else new
    return [Score(*map(torch.cat, zip(*scores, strict=True))) for scores in zip(*merged, strict=True)]


def split_log_weight(
    log_weight: Tensor | None,
    shape: tuple[int, int],
    rows: int,
    columns: int,
    self_index: Integer[Tensor, " n"] | None = None,
) -> Iterator[Iterable[Tensor | None]]:
    """Log-weights [n, m] = shape for `reduce_blocks`, in blocks of at most rows x columns.

    `self_index` is the index of the reference excluded for each query; outside 0..m-1: none.
    """

    def block(i: int, j: int) -> Tensor | None:
        weights = None if log_weight is None else log_weight[i : i + rows, j : j + columns]
        if self_index is None:
            return weights
        own, size = self_index[i : i + rows] - j, min(columns, shape[1] - j)
        (row,) = torch.nonzero((own >= 0) & (own < size), as_tuple=True)
        if len(row) == 0:
            return weights
        if weights is None:
            weights = torch.zeros(len(own), size, device=own.device)
        return weights.index_put((row, own[row]), weights.new_tensor(-torch.inf))

    for j in range(0, shape[1], columns):
        yield (block(i, j) for i in range(0, shape[0], rows))


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
