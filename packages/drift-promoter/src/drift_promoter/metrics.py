"""How far generated DNA is from the data, how varied it is, and how well it follows the signal."""

from collections.abc import Iterable

import torch
from drift_simplex.geometry import check_tokens
from einops import rearrange, reduce
from jaxtyping import Bool, Float, Float32, Float64, Int64
from torch import Tensor
from torch.nn import functional as F

Tokens = Int64[Tensor, "n length"]
"""Sequences of letters A, C, G, T as 0..3."""

_VOCAB_SIZE = 4
_C, _G = 1, 2
_ROWS = 2048
"""Windows of which the k-mers are counted at once."""


def kmer_codes(tokens: Tokens, k: int) -> Int64[Tensor, "n at"]:
    """Numbers 0..4^k - 1, in order of the alphabet, of the k-mers at each position but the last k - 1.

    Raises ValueError for tokens outside 0..3, or k-mers longer than the sequences or than 31.
    """
    check_tokens(tokens, _VOCAB_SIZE)
    starts = tokens.shape[1] - k + 1
    if not (1 <= k <= 31 and starts > 0):
        raise ValueError(f"sequences of {tokens.shape[1]} bases have no {k}-mers to number")
    codes = tokens[:, :starts]
    for i in range(1, k):
        codes = _VOCAB_SIZE * codes + tokens[:, i : i + starts]
    return codes


def kmer_counts(tokens: Tokens, k: int) -> Float64[Tensor, "kmers"]:
    """How often each of the 4^k k-mers occurs in all sequences together, at every position (stride 1)."""
    counts = torch.zeros(_VOCAB_SIZE**k, dtype=torch.float64)
    for rows in torch.split(tokens, _ROWS):
        counts += kmer_codes(rows, k).flatten().bincount(minlength=len(counts))
    return counts


def kmer_correlation(a: Float64[Tensor, "kmers"], b: Float64[Tensor, "kmers"]) -> float:
    """Pearson correlation of two tables of k-mer counts, over the k-mers that occur in either."""
    observed = (a > 0) | (b > 0)
    return float(torch.corrcoef(torch.stack([a[observed], b[observed]]))[0, 1])


def gc_content(tokens: Tokens) -> Float64[Tensor, "n"]:
    """Share of G and C among the bases of each sequence."""
    return is_gc(tokens).double().mean(1)


def is_gc(tokens: Tokens) -> Bool[Tensor, "n length"]:
    """Which bases are G or C."""
    return (tokens == _C) | (tokens == _G)


def cpg_ratio(tokens: Tokens) -> Float64[Tensor, "n"]:
    """CpG dinucleotides of each sequence over the number expected of its C and G: count(CG) length / (C G).

    The ratio of Gardiner-Garden and Frommer (1987): near 0.2 in most of the genome, above 0.6 in CpG
    islands. It is 0 without C or G.
    """
    c, g = tokens == _C, tokens == _G
    pairs = (c[:, :-1] & g[:, 1:]).double().sum(1)
    expected = c.double().sum(1) * g.double().sum(1) / tokens.shape[1]
    return torch.where(expected > 0, pairs / expected.clamp_min(1e-12), 0)


def wasserstein(x: Float64[Tensor, "n"], y: Float64[Tensor, "m"]) -> float:
    """Wasserstein-1 distance between two samples of numbers: the area between their distributions."""
    at = torch.cat([x, y]).sort().values
    f, g = (
        torch.searchsorted(side.sort().values, at[:-1], right=True).double() / len(side) for side in (x, y)
    )
    return float((f - g).abs() @ at.diff())


def base_frequencies(tokens: Tokens) -> Float64[Tensor, "length 4"]:
    """Share of sequences that have each letter, by position."""
    return F.one_hot(tokens, _VOCAB_SIZE).sum(0).double() / len(tokens)


def bases_tv(a: Float64[Tensor, "length 4"], b: Float64[Tensor, "length 4"]) -> float:
    """Total variation between base frequencies of one position, on average over positions."""
    return float((a - b).abs().sum(1).mean() / 2)


def distinct(tokens: Tokens) -> float:
    """Number of different sequences over the number of sequences."""
    return len(torch.unique(tokens, dim=0)) / len(tokens)


def nearest_hamming(tokens: Tokens, known: Iterable[Tensor]) -> Float64[Tensor, "n"]:
    """Share of positions at which each sequence differs from its nearest known one, of blocks [m, length]."""
    # Letters are corners of a tetrahedron: the product of two is 3 if they are the same, else -1.
    corners = torch.tensor([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=torch.float32)
    length = tokens.shape[1]
    x, nearest = F.embedding(tokens, corners).flatten(1), torch.full((len(tokens),), -float(length))
    for block in known:
        products = x @ F.embedding(block, corners).flatten(1).T
        nearest = torch.maximum(nearest, products.max(1).values)
    return (3 * length - nearest.double()) / (4 * length)


class Known:
    """The 24-mers of a set of sequences, of which unrelated real DNA shares few."""

    _K = 24

    def __init__(self, tokens: Tokens) -> None:
        self._codes = torch.unique(kmer_codes(tokens, self._K))

    def novelty(self, tokens: Tokens) -> float:
        """Share of the 24-mers of `tokens`, laid end to end, that are at no position of the known sequences.

        Copies are found wherever they start, as windows are shifted in training. Of a generator that
        recites its training data it is the share of those that are not among the known.
        """
        codes = kmer_codes(tokens, self._K)[:, :: self._K].contiguous()
        nearest = self._codes[torch.searchsorted(self._codes, codes).clamp_max(len(self._codes) - 1)]
        return float((nearest != codes).double().mean())


class Conditioning:
    """How much sequences vary with their signals, in units of how much real ones do.

    The response R of a set of windows is a table of covariances: over all windows and their tiles of
    32 positions, of the counts of each 3-mer with the signal, that of the tile and that of
    the whole window, on all tracks. A signal counts as its rank among held-out ones (its logarithm has
    tails so heavy that few windows would decide), less the mean rank of the windows at that tile:
    what all windows have in common at a position is no response. 3-mers count in units of their
    standard deviation.

    The score is <R, R_held-out> / <R_train, R_held-out>, a slope. It is linear in R and the expected R is
    0 for any generator that ignores the signal, so that its expected score is 0, for any number of
    samples; of one that follows the real law it is 1, and of a mixture of both the share of
    the latter. A generator that exaggerates what the signal does is above 1.
    """

    _K, _TILE = 3, 32

    def __init__(
        self,
        held_out: Tokens,
        held_out_signal: Float32[Tensor, "n length tracks"],
        train: Int64[Tensor, "m length"],
        train_signal: Float32[Tensor, "m length tracks"],
    ) -> None:
        self._tile = min(self._TILE, held_out.shape[1])
        self._sorted = _columns(self._signals(held_out_signal)).sort(1).values
        share = kmer_counts(held_out, self._K) / (len(held_out) * (held_out.shape[1] - self._K + 1))
        self._scale = (share * (1 - share)).rsqrt().nan_to_num(posinf=0)
        response = self._response(held_out, held_out_signal)
        self._direction = response / (response * self._response(train, train_signal)).sum()

    def __call__(self, tokens: Tokens, signal: Float32[Tensor, "n length tracks"]) -> float:
        """Score of sequences that were generated for these signals; NaN if real ones have no response."""
        return float((self._response(tokens, signal) * self._direction).sum())

    def _response(self, tokens: Tensor, signal: Tensor) -> Float64[Tensor, "signals kmers"]:
        ranks = self._ranks(self._signals(signal))
        ranks = ranks - ranks.mean(0)
        total = torch.zeros(ranks.shape[2], _VOCAB_SIZE**self._K, dtype=torch.float64)
        for some, rows in zip(torch.split(ranks, _ROWS), torch.split(tokens, _ROWS), strict=True):
            total += some.flatten(0, 1).T @ self._counts(rows).flatten(0, 1)
        return total / tokens.numel() * self._scale

    def _signals(self, signal: Tensor) -> Float[Tensor, "n tiles signals"]:
        """Mean signal of each tile and of its window, on all tracks."""
        kept = signal.shape[1] // self._tile * self._tile
        local = reduce(signal[:, :kept], "n (s p) t -> n s t", "mean", p=self._tile)
        return torch.cat([local, signal.mean(1, keepdim=True).expand_as(local)], dim=-1)

    def _ranks(self, signals: Tensor) -> Float64[Tensor, "n tiles signals"]:
        """Shares of held-out signals that are smaller."""
        below = torch.searchsorted(self._sorted, _columns(signals))
        return rearrange(below.double() / self._sorted.shape[1], "t (n s) -> n s t", n=len(signals))

    def _counts(self, tokens: Tensor) -> Float64[Tensor, "n tiles kmers"]:
        """How often each 3-mer starts in each tile."""
        kmers, tiles = _VOCAB_SIZE**self._K, tokens.shape[1] // self._tile
        codes = kmer_codes(tokens, self._K)[:, : tiles * self._tile]
        at = torch.arange(len(tokens))[:, None] * tiles + torch.arange(codes.shape[1]) // self._tile
        counts = (kmers * at + codes).flatten().bincount(minlength=len(tokens) * tiles * kmers)
        return counts.view(len(tokens), tiles, kmers).double()


def _columns(signals: Tensor) -> Tensor:
    return rearrange(signals, "n s t -> t (n s)").contiguous()
