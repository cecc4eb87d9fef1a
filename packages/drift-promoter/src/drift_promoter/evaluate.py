"""Metrics of a generator beside their floors, the values that a perfect generator would get."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from drift_core.runs.datasets import cache_folder
from drift_core.runs.floors import Floors, cached_floors
from drift_core.runs.metrics import Measured, Metrics, evaluate_draws
from drift_core.seeds import generator_for
from torch import Generator, Tensor

from drift_promoter.data import Promoters, Windows
from drift_promoter.metrics import (
    Conditioning,
    Known,
    base_frequencies,
    bases_tv,
    cpg_ratio,
    distinct,
    gc_content,
    kmer_correlation,
    kmer_counts,
    nearest_hamming,
    wasserstein,
)
from drift_promoter.toy import placed

Draw = Callable[[Tensor, Generator], Tensor]
"""Draws sequences [n, length] for signals [n, length, tracks] with a generator of random numbers."""

SAMPLES = 2048
"""Sequences of one draw, or as many as there are held-out windows if they are fewer."""

VERSION = 2
"""Raise this when the same data are to give other floors; the number of samples counts already."""

_KNOWN, _RESPONSE = 4096, 8192
"""Training windows among which copies are sought, and from which the response to the signal is taken."""

_NEAREST = 128
"""Sequences of which the nearest training window is sought."""

_VALUE, _FLOOR, _REFERENCE = 0, 1, 2
"""Random streams."""


def evaluate(
    draw: Draw,
    data: Promoters,
    on: Literal["val", "test"] = "test",
    draws: int = 3,
    seed: int = 0,
) -> Metrics:
    """Score draws of 2,048 sequences, metric by name.

    Sequences are generated for the signals of a random set of held-out windows (of all, if they are fewer)
    and compared with all held-out windows.

    - `kmer_correlation`, the published metric: Pearson correlation of 6-mer counts, pooled over sequences;
      `kmer3_correlation` to `kmer8_correlation` are those of the other lengths.
    - `bases_tv`: total variation between the letters at a position, on average. `gc_w1` and `cpg_w1`:
      Wasserstein-1 between the GC contents, and the CpG ratios, of single sequences.
    - `distinct`: share of different sequences. `novelty`: share of 24-mers that do not occur in 4,096
      training windows. `nearest_train`: share of bases that differ between a sequence and its nearest
      training window in the same place, the mean of 128 sequences of the first draw; 0 for copies.
    - `conditioning` (see `Conditioning`): 0 for a generator that ignores the signal, 1 for one that
      follows it as real sequences do; `conditioning_shuffled` is the same against the signals of other
      sequences. With motifs, `motif_placement` is the share of them that are where the signal has them,
      and `motif_placement_shuffled` its level by chance.

    The floor is the same, of the same size, for a perfect generator: training windows, without
    replacement, and their signals, in place of the samples; for `novelty` and
    `nearest_train` it is the held-out windows.
    Standard deviations are those of one draw (0 if there is only one). Raises ValueError for draws < 1, or
    without held-out windows.
    """
    held_out = data.val if on == "val" else data.test
    if not len(held_out):
        raise ValueError(f"the data have no windows to evaluate on (split {on!r})")
    size = min(SAMPLES, len(held_out))
    measure = Measure(data, held_out, generator_for(seed, _REFERENCE))
    floors = promoter_floors(measure, data, held_out, draws, seed)

    def measure_draw(i: int) -> Measured:
        generator = generator_for(seed, _VALUE, i)
        signals = held_out.signals(_subset(len(held_out), size, generator))
        tokens = draw(signals, generator)
        nearest = {} if i else measure.nearest(tokens)
        return measure(tokens, signals, generator) | nearest, floors[i]

    return evaluate_draws(measure_draw, draws)


class Measure:
    """All metrics of sequences and their signals, against windows of which statistics are taken once."""

    _LENGTHS = (6, 3, 4, 5, 7, 8)

    def __init__(self, data: Promoters, held_out: Windows, generator: Generator) -> None:
        self._train, self._motifs = data.train, data.motifs
        self._held_out = held_out.tokens(torch.arange(len(held_out)))
        self._kmers = {k: kmer_counts(self._held_out, k) for k in self._LENGTHS}
        self._bases = base_frequencies(self._held_out)
        self._gc, self._cpg = gc_content(self._held_out), cpg_ratio(self._held_out)
        order = _subset(len(data.train), _RESPONSE, generator)
        train = data.train.tokens(order)
        self._known = Known(train[:_KNOWN])
        signals = held_out.signals(torch.arange(len(held_out)))
        self._conditioning = Conditioning(self._held_out, signals, train, data.train.signals(order))

    def __call__(self, tokens: Tensor, signals: Tensor, generator: Generator) -> dict[str, float]:
        """Metrics of n sequences by name; the generator shuffles signals."""
        shuffled = signals[torch.randperm(len(signals), generator=generator)]
        values = {
            f"kmer{'' if k == 6 else k}_correlation": kmer_correlation(kmer_counts(tokens, k), counts)
            for k, counts in self._kmers.items()
        } | {
            "bases_tv": bases_tv(base_frequencies(tokens), self._bases),
            "gc_w1": wasserstein(gc_content(tokens), self._gc),
            "cpg_w1": wasserstein(cpg_ratio(tokens), self._cpg),
            "distinct": distinct(tokens),
            "novelty": self._known.novelty(tokens),
            "conditioning": self._conditioning(tokens, signals),
            "conditioning_shuffled": self._conditioning(tokens, shuffled),
        }
        if self._motifs:
            values["motif_placement"] = float(placed(tokens, signals).mean())
            values["motif_placement_shuffled"] = float(placed(tokens, shuffled).mean())
        return values

    def nearest(self, tokens: Tensor) -> dict[str, float]:
        """The metric of the first of n sequences that compares them with every training window."""
        blocks = torch.split(torch.arange(len(self._train)), _KNOWN)
        distances = nearest_hamming(tokens[:_NEAREST], map(self._train.tokens, blocks))
        return {"nearest_train": float(distances.mean())}

    def floor(self, size: int, generator: Generator, *, first: bool) -> dict[str, float]:
        """Metrics of a perfect generator, of at most `size` sequences; those of the first draw if it is."""
        rows = _subset(len(self._train), size, generator)
        values = self(self._train.tokens(rows), self._train.signals(rows), generator)
        fresh = self._held_out[_subset(len(self._held_out), size, generator)]
        nearest = self.nearest(fresh) if first else {}
        return {**values, "novelty": self._known.novelty(fresh), **nearest}


def promoter_floors(measure: Measure, data: Promoters, held_out: Windows, draws: int, seed: int) -> Floors:
    """Floors of the measure, from the cache if they are in it."""
    size = min(SAMPLES, len(held_out))
    key = {"version": VERSION, "size": size, "seed": seed, "motifs": data.motifs}
    key |= described("train", data.train) | described("held out", held_out)

    def floor(i: int) -> dict[str, float]:
        return measure.floor(size, generator_for(seed, _FLOOR, i), first=i == 0)

    return cached_floors(cache_folder("promoter"), key, floor, draws)


def described(name: str, windows: Windows) -> dict[str, Any]:
    """All that determines the sequences and signals of windows, for the key of a cache."""
    strands = "".join(windows.strand)
    cut = f"{windows.margin} {windows.tracks} {strands}"
    return {f"{name} bases": windows.bases, f"{name} signal": windows.signal, f"{name} cut": cut}


def _subset(n: int, size: int, generator: Generator) -> Tensor:
    """At most `size` of the numbers 0..n-1, in random order."""
    return torch.randperm(n, generator=generator)[:size]
