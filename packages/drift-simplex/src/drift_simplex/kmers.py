"""Scores against all strings of a short length at once, each as often as a table of counts says.

Data that are cut into words of w letters have at most K^w different ones (65,536 words of 8 letters of DNA):
their counts are a table, whatever the size of the data. With a product kernel over positions, the kernel of a
word is the product of those of its halves, so that two matrix products with the table, as a matrix
[K^(w/2), K^(w/2)], sum over all words for all queries together.
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
"""Entries of the largest table that is accepted."""
_ENTRIES = 2**21
"""Numbers in the largest array that a block of queries needs."""
_LEAST = 1e-12
"""Share of the kernel below which a difference of sums is rounding."""


def kmer_scores(
    kernels: Sequence[RadialKernel],
    x: Float[Tensor, "n ..."],
    counts: Shaped[Tensor, " words"],
    *,
    own: Integer[Tensor, "n ..."] | None = None,
    direction: str = "gradient",
) -> list[Score]:
    """Scores of product kernels towards all words of w letters, each counted as often as a table says.

    Equal to `onehot_scores(kernels, x, all words, log_weight=log(counts), product=True)`, at a cost that
    depends on the number of words and not on that of the data. Computed in float64: the kernels of
    letters, each relative to the nearest letter, may be as small as 1e-300 in their product.

    Args:
        kernels: kernels of the angle at one position.
        x: queries, shape [n, w, K], float32 or float64.
        counts: how often each word occurs, shape [K^w]; non-negative numbers of any type. The first letter of
            a word is the most significant digit of its number.
        own: for each query its own words among those that are counted, tokens [n, r, w], which do not pull
            it: where samples repel, themselves. They are subtracted, so that other words that weigh less
            than 1e-12 of all do not pull either.
        direction: "gradient" (kernel gradient) or "displacement" (mean shift).

    Raises:
        ValueError: shapes that do not fit, more than 4^10 words, an unknown direction, or a kernel not
            defined on S^{K-1}.
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
        pull = sums.letters * safe_inverse(sums.mass)[:, None, None] * safe_ratio(slope, sin)
        scores.append(Score((sums.mass.log() + sums.shift).to(x.dtype), tangent_part(x, pull)))
    return scores


def kmer_effective_sample_size(
    kernel: RadialKernel,
    x: Float[Tensor, "n ..."],
    counts: Shaped[Tensor, " words"],
) -> Float[Tensor, " n"]:
    """Number of occurrences of words that carry each query's score, (sum_j k_j)^2 / sum_j k_j^2 (Kish).

    0 for a table without words. Raises ValueError as `kmer_scores`.
    """
    _check((kernel,), x, counts)
    logs = kernel.log(vertex_angles(x)[0])
    mass, squares = (_sums(values, counts).mass for values in (logs, 2 * logs))
    return safe_ratio(mass.square(), squares).to(x.dtype)


class _Sums(NamedTuple):
    """Sums over all words of counts times kernels, which are exp(shift) times larger."""

    mass: Tensor
    """[n]."""
    letters: Tensor
    """Of the words that have a letter at a position, [n, w, K]."""
    shift: Tensor
    """[n]."""


def _sums(logs: Float[Tensor, "n w K"], counts: Shaped[Tensor, " words"]) -> _Sums:
    """`logs` are the logarithms of the kernels of all letters at all positions."""
    w, letters = logs.shape[1:]
    half = w // 2
    matrix = counts.to(logs.dtype).view(letters**half, -1)
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
        parts = [*_marginals(joint_first, half, letters), *_marginals(joint_second, w - half, letters)]
        weights[rows] = torch.stack(parts, dim=1)
    return _Sums(mass, weights, peak.sum(dim=(1, 2)))


def _without(sums: _Sums, logs: Float[Tensor, "n w K"], own: Integer[Tensor, "n r w"]) -> _Sums:
    """Sums over all words but one occurrence of each of a query's own."""
    values = (logs - logs.amax(dim=2, keepdim=True)).exp()
    member = one_hot(own.long(), logs.shape[2]).to(values.dtype)
    kernel = torch.einsum("nrwk,nwk->nrw", member, values).prod(dim=2)
    mass = sums.mass - kernel.sum(dim=1)
    others = mass > _LEAST * sums.mass
    letters = (sums.letters - torch.einsum("nr,nrwk->nwk", kernel, member)).clamp_min(0)
    return _Sums(mass * others, letters * others[:, None, None], sums.shift)


def _products(values: Float[Tensor, "n h K"]) -> Float[Tensor, "n words"]:
    """Products of one value of each position, for all words of h letters."""
    product = values.new_ones(len(values), 1)
    for at in values.unbind(1):
        product = (product[:, :, None] * at[:, None, :]).flatten(1)
    return product


def _marginals(joint: Float[Tensor, "n words"], h: int, letters: int) -> list[Float[Tensor, "n K"]]:
    """Sums over the words of h letters that have a letter at a position, position by position."""
    n = len(joint)
    return [joint.view(n, letters**i, letters, -1).sum(dim=(1, 3)) for i in range(h)]


def _check(kernels: Sequence[RadialKernel], x: Tensor, counts: Tensor, own: Tensor | None = None) -> None:
    if x.ndim != 3 or x.shape[1] < 1 or x.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"expected float queries [n, w, K] with w >= 1, got {x.dtype} {list(x.shape)}")
    check_kernels(Sphere(), kernels, x[:, 0])
    words = x.shape[2] ** x.shape[1]
    if words > MAX_KMERS:
        raise ValueError(f"words of {x.shape[1]} letters out of {x.shape[2]} are too many for a table")
    if len(counts) != words:
        raise ValueError(f"expected counts of {words} words, got {len(counts)}")
    if own is not None:
        if own.ndim != 3 or (own.shape[0], own.shape[2]) != x.shape[:2]:
            expected = f"[{len(x)}, r, {x.shape[1]}]"
            raise ValueError(f"expected words of the queries {expected}, got {list(own.shape)}")
        check_tokens(own, x.shape[2])
