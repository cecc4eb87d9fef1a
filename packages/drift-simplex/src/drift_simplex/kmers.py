"""Scores against all k-mers at once, weighted by their counts.

There are K^w k-mers of w letters (65,536 8-mers of DNA), so that the size of a table of their counts does not
depend on the data. A product kernel of a k-mer is the product of the kernels of its two halves: two matrix
products with the table, as a matrix [K^(w/2), K^(w/2)], sum over all k-mers for all queries.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from drift_core import RadialKernel, Score, Sphere
from drift_core.manifold.numerics import safe_inverse, safe_ratio
from drift_core.reduction import DIRECTIONS, check_kernels
from jaxtyping import Float, Integer, Shaped
from torch import Tensor
from torch.nn.functional import one_hot

from drift_simplex.geometry import check_tokens
from drift_simplex.letters import tangent_part, vertex_angles

MAX_KMERS = 4**10
"""Entries of the largest accepted table of counts."""
_ENTRIES = 2**21
"""Numbers in the largest array that a block of queries needs."""
_LEAST = 1e-12
"""Fraction of a sum below which the difference of two sums is rounding."""


def kmer_scores(
    kernels: Sequence[RadialKernel],
    x: Float[Tensor, "n ..."],
    counts: Shaped[Tensor, " kmers"],
    *,
    own: Integer[Tensor, "n ..."] | None = None,
    direction: str = "gradient",
) -> list[Score]:
    """Scores of product kernels against all k-mers, weighted by their counts.

    Equal to `onehot_scores(kernels, x, all_kmers, log_weight=log(counts), product=True)`; the cost depends on
    the number of different k-mers, not on the size of the data. Computed in float64, because a product of
    kernels, each relative to the nearest letter, may be as small as 1e-300.

    Args:
        kernels: kernels of the angle at one position.
        x: queries, shape [n, w, K], float32 or float64.
        counts: how often each k-mer occurs, shape [K^w]; non-negative numbers of any type. The first letter
            is the most significant digit of a k-mer's index.
        own: the counted k-mers of each query itself, tokens [n, r, w], which do not attract it. They are
            subtracted; if the other k-mers have less than 1e-12 of the mass, these do not attract either.
        direction: "gradient" (kernel gradient) or "displacement" (mean shift).

    Raises:
        ValueError: mismatched shapes, more than 4^10 different k-mers, an unknown direction, or a kernel
            not defined on S^{K-1}.
    """
    _check(kernels, x, counts, own)
    if direction not in DIRECTIONS:
        raise ValueError(f"direction must be one of {', '.join(DIRECTIONS)}; got {direction!r}")
    theta, sin = vertex_angles(x)
    scores = []
    for kernel in kernels:
        logs = kernel.log(theta)
        sums = _sums(logs, counts)
        if own is not None:
            sums = _without(sums, logs, own)
        slope = -kernel.dlog(theta) if direction == "gradient" else theta
        share = sums.by_letter * safe_inverse(sums.mass)[:, None, None]
        log_density = (sums.mass.log() + sums.shift).to(x.dtype)
        scores.append(Score(log_density, tangent_part(x, share * safe_ratio(slope, sin))))
    return scores


def kmer_effective_sample_size(
    kernel: RadialKernel,
    x: Float[Tensor, "n ..."],
    counts: Shaped[Tensor, " kmers"],
) -> Float[Tensor, " n"]:
    """Effective sample size (Kish) of each query's score, (sum_j k_j)^2 / sum_j k_j^2 over counted k-mers.

    0 if all counts are 0. Raises ValueError as `kmer_scores`.
    """
    _check((kernel,), x, counts)
    logs = kernel.log(vertex_angles(x)[0])
    mass, squares = (_sums(values, counts).mass for values in (logs, 2 * logs))
    return safe_ratio(mass.square(), squares).to(x.dtype)


class _Sums(NamedTuple):
    """Sums over all k-mers of counts times kernels, divided by exp(shift)."""

    mass: Tensor
    """Over all k-mers, [n]."""
    by_letter: Tensor
    """Over the k-mers that have a given letter at a given position, [n, w, K]."""
    shift: Tensor
    """Logarithm of the divisor of the sums, [n]."""


def _sums(logs: Float[Tensor, "n w K"], counts: Shaped[Tensor, " kmers"]) -> _Sums:
    """Sums for the log-kernels of all letters at all positions."""
    w, vocab_size = logs.shape[1:]
    half = w // 2
    matrix = counts.to(logs.dtype).view(vocab_size**half, -1)
    peak = logs.amax(dim=2, keepdim=True)
    mass, weights = logs.new_zeros(len(logs)), torch.zeros_like(logs)
    size = max(1, _ENTRIES // matrix.shape[1])
    for low in range(0, len(logs), size):
        rows = slice(low, low + size)
        values = (logs[rows] - peak[rows]).exp()
        first, second = _products(values[:, :half]), _products(values[:, half:])
        joint_second = second * (first @ matrix)
        joint_first = first * (second @ matrix.T)
        mass[rows] = joint_second.sum(dim=1)
        parts = [*_marginals(joint_first, half, vocab_size), *_marginals(joint_second, w - half, vocab_size)]
        weights[rows] = torch.stack(parts, dim=1)
    return _Sums(mass, weights, peak.sum(dim=(1, 2)))


def _without(sums: _Sums, logs: Float[Tensor, "n w K"], own: Integer[Tensor, "n r w"]) -> _Sums:
    """Sums without one occurrence of each of a query's own k-mers."""
    values = (logs - logs.amax(dim=2, keepdim=True)).exp()
    member = one_hot(own.long(), logs.shape[2]).to(values.dtype)
    kernel = torch.einsum("nrwk,nwk->nrw", member, values).prod(dim=2)
    mass = sums.mass - kernel.sum(dim=1)
    others = mass > _LEAST * sums.mass
    by_letter = (sums.by_letter - torch.einsum("nr,nrwk->nwk", kernel, member)).clamp_min(0)
    return _Sums(mass * others, by_letter * others[:, None, None], sums.shift)


def _products(values: Float[Tensor, "n h K"]) -> Float[Tensor, "n kmers"]:
    """Products of one value per position, for all k-mers of h letters."""
    product = values.new_ones(len(values), 1)
    for at in values.unbind(1):
        product = (product[:, :, None] * at[:, None, :]).flatten(1)
    return product


def _marginals(joint: Float[Tensor, "n kmers"], h: int, vocab_size: int) -> list[Float[Tensor, "n K"]]:
    """Sums over the k-mers of h letters that have a given letter at each position in turn."""
    n = len(joint)
    return [joint.view(n, vocab_size**i, vocab_size, -1).sum(dim=(1, 3)) for i in range(h)]


def _check(kernels: Sequence[RadialKernel], x: Tensor, counts: Tensor, own: Tensor | None = None) -> None:
    if x.ndim != 3 or x.shape[1] < 1 or x.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"expected float queries [n, w, K] with w >= 1, got {x.dtype} {list(x.shape)}")
    check_kernels(Sphere(), kernels, x[:, 0])
    kmers = x.shape[2] ** x.shape[1]
    if kmers > MAX_KMERS:
        raise ValueError(f"{x.shape[1]}-mers of {x.shape[2]} letters are too many for a table of counts")
    if len(counts) != kmers:
        raise ValueError(f"expected counts of {kmers} k-mers, got {len(counts)}")
    if own is not None:
        if own.ndim != 3 or (own.shape[0], own.shape[2]) != x.shape[:2]:
            expected = f"[{len(x)}, r, {x.shape[1]}]"
            raise ValueError(f"expected k-mers of the queries {expected}, got {list(own.shape)}")
        check_tokens(own, x.shape[2])
