"""Promoters for training, validation and testing."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float16, Float32, Int64, Shaped, UInt8
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor

from drift_promoter.genome.benchmark import MARGIN, SPLITS, find_sources
from drift_promoter.toy import TOY_LENGTH, generate

DATASETS = ("toy", "promoter")
"""The names that `load` knows."""

TRACKS = 2
"""Tracks of the signal: of the promoter's own strand, and of the other one."""

TOY_SIZES = (20_000, 1_000, 1_000)
"""Toy promoters for training, validation and testing."""


@dataclass(frozen=True, eq=False, repr=False)
class Windows:
    """Promoters in the direction of their strands, with some base pairs more on both sides.

    The arrays may be memory maps: what is asked for is read then.
    """

    bases: UInt8[np.ndarray, "n width"]
    """A, C, G, T as 0 to 3 (4 is what is not known, which `load` leaves out)."""
    signal: Float16[np.ndarray, "n width 2"]
    """log10(1 + x) of the CAGE signal x at each base; track 0 is that of the same strand."""
    chrom: Sequence[str]
    tss: Int64[np.ndarray, "n"]
    """Start sites, 0-based."""
    strand: Sequence[str]
    """"+" or "-"."""
    margin: int
    """How many base pairs more there are on each side."""
    tracks: int = TRACKS
    """Tracks of the signals that are given: 2, or 1 for that of the same strand alone."""

    def __post_init__(self) -> None:
        if not 1 <= self.tracks <= TRACKS:
            raise ValueError(f"tracks must be 1 or {TRACKS}, got {self.tracks}")

    def __len__(self) -> int:
        return len(self.bases)

    @property
    def length(self) -> int:
        """Base pairs of a promoter."""
        return self.bases.shape[1] - 2 * self.margin

    def tokens(
        self, rows: Int64[Tensor, "k"], shift: Int64[Tensor, "k"] | int = 0
    ) -> Int64[Tensor, "k length"]:
        """Bases of some promoters, whose windows lie `shift` base pairs further right in the genome.

        Raises:
            ValueError: a shift is larger than the margin.
        """
        return torch.from_numpy(self._cut(self.bases, rows, shift).astype(np.int64))

    def signals(
        self, rows: Int64[Tensor, "k"], shift: Int64[Tensor, "k"] | int = 0
    ) -> Float32[Tensor, "k length tracks"]:
        """Signals of some promoters, whose windows lie `shift` base pairs further right in the genome.

        Raises:
            ValueError: a shift is larger than the margin.
        """
        found = self._cut(self.signal, rows, shift)[:, : self.tracks]
        return torch.from_numpy(found.swapaxes(1, 2).astype(np.float32, order="C"))

    def names(self, rows: Int64[Tensor, "k"]) -> list[str]:
        """Names such as `chr1:1000-2024(+)`: chromosome, start, end (0-based, half-open) and strand."""
        start = self.tss + self._minus - self.length // 2
        return [
            f"{self.chrom[row]}:{start[row]}-{start[row] + self.length}({self.strand[row]})"
            for row in rows.tolist()
        ]

    @cached_property
    def _minus(self) -> Bool[np.ndarray, "n"]:
        return np.array([strand == "-" for strand in self.strand])

    def _cut(
        self,
        stored: Shaped[np.ndarray, "n width *rest"],
        rows: Int64[Tensor, "k"],
        shift: Int64[Tensor, "k"] | int,
    ) -> Shaped[np.ndarray, "k *rest_length"]:
        """Rows of an array without their margins; the axis of positions comes last."""
        right = shift.numpy() if isinstance(shift, Tensor) else np.full(len(rows), shift)
        if (np.abs(right) > self.margin).any():
            raise ValueError(f"shifts must be within -{self.margin} and {self.margin}")
        start = self.margin + np.where(self._minus[rows.numpy()], -right, right)
        return sliding_window_view(stored, self.length, axis=1)[rows.numpy(), start]


@dataclass(frozen=True)
class Promoters:
    """Windows for training, validation (selection) and testing (reports)."""

    train: Windows
    val: Windows
    """May be empty: the miniature of the benchmark has no start site on chromosome 10."""
    test: Windows
    skipped: int = 0
    """Windows that are left out because they hold an N."""
    motifs: bool = False
    """Whether `drift_promoter.toy.placed` can score where the motifs are."""


def load(
    dataset: str = "toy",
    tss: str | Path | None = None,
    data_dir: str | Path | None = None,
    *,
    tracks: int = TRACKS,
    workers: int | None = None,
) -> Promoters:
    """Load the data set called `dataset`, or if `tss` is given the windows around the sites in that table.

    `dataset` is "toy" (generated: `drift_promoter.toy`) or "promoter", the benchmark: 1,024 base pairs around
    each of the first 100,000 start sites; chromosomes 8 and 9 for testing, 10 for validation. Its files, or
    those of a miniature, are looked for as `find_sources` does. `tss` is another table (columns chr, TSS,
    strand) in the coordinates of those files. With `tracks=1` signals are those of the same strand alone.
    Windows are extracted once, by `workers` processes (None: one a core), and kept in the user's cache.

    Raises:
        ValueError: an unknown name; tracks that are not 1 or 2; a file that is damaged or does not fit the
            others, or a table without windows to train on or to test on, as
            `drift_promoter.genome.cache.stored` says.
        OSError: a file is missing, or the cache cannot be written.
    """
    if dataset not in DATASETS:
        raise ValueError(f"no data set {dataset!r}; there are {', '.join(DATASETS)}")
    if dataset == "toy" and tss is None:
        return _toy(tracks)
    from drift_promoter.genome.cache import stored  # loads pyBigWig and pyfaidx

    found = stored(find_sources(data_dir, tss), workers or os.cpu_count() or 1)
    strand = np.where(found.minus, "-", "+").tolist()
    whole = Windows(found.bases, found.signal, found.chrom, found.tss, strand, MARGIN, tracks)
    train, val, test = _split(whole, [found.sizes[name] for name in SPLITS])
    return Promoters(train, val, test, skipped=found.skipped)


def _toy(tracks: int) -> Promoters:
    n = sum(TOY_SIZES)
    bases, signal = generate(n)
    tss = np.arange(n) * TOY_LENGTH + TOY_LENGTH // 2
    whole = Windows(bases, signal, ["toy"] * n, tss, ["+"] * n, margin=0, tracks=tracks)
    train, val, test = _split(whole, TOY_SIZES)
    return Promoters(train, val, test, motifs=True)


def _split(whole: Windows, sizes: Iterable[int]) -> Iterator[Windows]:
    low = 0
    for size in sizes:
        rows = slice(low, low := low + size)
        columns = {name: getattr(whole, name)[rows] for name in ("bases", "signal", "chrom", "tss", "strand")}
        yield replace(whole, **columns)
