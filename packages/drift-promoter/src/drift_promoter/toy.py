"""Generated promoters: which motifs they have, and where, follows from the signal."""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float16, Int64, UInt8
from torch import Tensor

from drift_promoter.bases import encode

TOY_LENGTH = 128
"""Base pairs of a toy promoter."""

START_SITES = (48, 100)
"""The first and the last position of a start site."""


class Motif(NamedTuple):
    """Letters that begin at `offset` base pairs from the start site."""

    letters: str
    offset: int


INR = Motif("TCAGTT", -2)
"""The initiator, which all promoters have; its A is at the start site."""

TATA = Motif("TATAAA", -30)
"""What a sharp peak asks for."""

GC_BOXES = (Motif("GGGCGG", -48), Motif("GGGCGG", -38))
"""What a broad peak asks for."""

ANTISENSE = Motif("CCGCCC", 12)
"""The GC box of the other strand, which a peak on that strand asks for."""

MOTIFS = (INR, TATA, *GC_BOXES, ANTISENSE)

MISMATCHES = 1
"""How many letters of a motif may differ for it to count as placed; by chance 0.5 % of places do."""

_WIDTHS = (1.0, 6.0)
"""Standard deviations of a sharp and of a broad peak (base pairs)."""
_HEIGHTS = (0.8, 2.5)
"""The lowest and the highest peak: log10(1 + x)."""
_ANTISENSE_PEAK = 15
"""Where the peak on the other strand is, from the start site (base pairs)."""
_NOISE = 0.03
_REACH = 24
"""How far around its middle a peak is looked at (base pairs)."""


def generate(
    n: int, seed: int = 0
) -> tuple[UInt8[np.ndarray, "n length"], Float16[np.ndarray, "n length 2"]]:
    """Bases and signals of n promoters of 128 base pairs, always the same for a seed.

    The start site is anywhere in `START_SITES`, its peak on track 0 sharp or broad, of any height; every
    other promoter has a peak on track 1. Bases between the motifs are a Markov chain of order 2.
    """
    rng = np.random.default_rng(seed)
    site = rng.integers(START_SITES[0], START_SITES[1] + 1, n)
    broad, antisense = rng.random((2, n)) < 0.5
    height = rng.uniform(*_HEIGHTS, (2, n))
    far = np.arange(TOY_LENGTH) - site[:, None]
    width = np.where(broad, _WIDTHS[1], _WIDTHS[0])[:, None]
    same = height[0][:, None] * np.exp(-(far**2) / (2 * width**2))
    other = (height[1] * antisense)[:, None] * np.exp(-((far - _ANTISENSE_PEAK) ** 2) / (2 * _WIDTHS[0] ** 2))
    signal = np.abs(np.stack([same, other], axis=2) + _NOISE * rng.standard_normal((n, TOY_LENGTH, 2)))
    bases = _background(n, rng)
    for motif, asked in zip(
        MOTIFS, asks(torch.from_numpy(broad), torch.from_numpy(antisense)).T, strict=True
    ):
        rows = np.flatnonzero(asked.numpy())
        letters = encode(motif.letters)
        bases[rows[:, None], site[rows, None] + motif.offset + np.arange(len(letters))] = letters
    return bases, signal.astype(np.float16)


def _background(n: int, rng: np.random.Generator) -> UInt8[np.ndarray, "n length"]:
    """Bases in which CG is rare, TG and CA are common in its place, and A, T and G come in runs."""
    weight = np.tile(np.array([0.23, 0.27, 0.27, 0.23]), (4, 4, 1))  # of A, C, G, T after two bases
    a, c, g, t = range(4)
    weight[:, c, g] *= 0.25
    weight[:, c, a] *= 1.8
    weight[:, t, g] *= 1.8
    for base, more in ((a, 2.0), (t, 2.0), (g, 1.5)):
        weight[base, base, base] *= more
    below = (weight / weight.sum(axis=2, keepdims=True)).cumsum(axis=2)[..., :3]
    bases = rng.integers(4, size=(TOY_LENGTH, n), dtype=np.uint8)
    for i, draw in enumerate(rng.random((TOY_LENGTH - 2, n)), start=2):
        bases[i] = (draw[:, None] >= below[bases[i - 2], bases[i - 1]]).sum(axis=1)
    return np.ascontiguousarray(bases.T)


def asks(broad: Bool[Tensor, "n"], antisense: Bool[Tensor, "n"]) -> Bool[Tensor, "n motifs"]:
    """Which of `MOTIFS` promoters with these peaks have."""
    return torch.stack([torch.ones_like(broad), ~broad, broad, broad, antisense], dim=1)


class Peaks(NamedTuple):
    """What a signal says."""

    site: Int64[Tensor, "n"]
    broad: Bool[Tensor, "n"]
    antisense: Bool[Tensor, "n"]


def read_peaks(signals: Float[Tensor, "n length tracks"]) -> Peaks:
    """Start site and kind of the peak on track 0, by matched filters, and whether there is one on track 1.

    Signals of track 0 alone say of none there.
    """
    far = torch.arange(-_REACH, _REACH + 1, dtype=signals.dtype, device=signals.device)
    shapes = torch.exp(-(far**2) / (2 * signals.new_tensor(_WIDTHS)[:, None] ** 2))
    shapes = shapes / shapes.norm(dim=1, keepdim=True)
    around = signals[:, START_SITES[0] - _REACH : START_SITES[1] + _REACH + 1, 0]
    found = F.conv1d(around[:, None], shapes[:, None])
    best = found.flatten(1).argmax(1)
    sites = found.shape[2]
    antisense = (signals[..., 1:] > _HEIGHTS[0] / 2).flatten(1).any(1)
    return Peaks(START_SITES[0] + best % sites, best >= sites, antisense)


def placed(
    tokens: Int64[Tensor, "n length"], signals: Float[Tensor, "n length tracks"]
) -> Float[Tensor, "n"]:
    """Share of the motifs that each signal asks for that are at their places, up to one wrong letter.

    1 for the data; what sequences have there by chance is what they have with signals of others. Signals of
    track 0 alone do not ask for `ANTISENSE`, which then does not count.
    """
    peaks = read_peaks(signals)
    asked = asks(peaks.broad, peaks.antisense).to(signals.dtype)
    there = torch.stack([_is_at(tokens, motif, peaks.site) for motif in MOTIFS], dim=1)
    return (there * asked).sum(1) / asked.sum(1)


def _is_at(tokens: Int64[Tensor, "n length"], motif: Motif, site: Int64[Tensor, "n"]) -> Bool[Tensor, "n"]:
    letters = torch.from_numpy(encode(motif.letters)).to(tokens)
    places = site[:, None] + motif.offset + torch.arange(len(letters), device=site.device)
    return (tokens.gather(1, places) != letters).sum(1) <= MISMATCHES
