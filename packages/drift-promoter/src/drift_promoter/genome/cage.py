"""CAGE: how often transcription starts at each base, on each strand, from bigWig files."""

import gzip
import struct
import zlib
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyBigWig
from jaxtyping import Float32, Int64

from drift_promoter.genome.benchmark import Sources
from drift_promoter.genome.table import plain

_MAGIC = 0x888FFC26
"""What a bigWig file begins and ends with."""
_HEADER = 64
"""Bytes of the header of a bigWig file."""


class Track:
    """Values of one strand by position, from a bigWig file.

    Raises:
        ValueError: the file is not bigWig, is truncated, or is damaged.
    """

    def __init__(self, path: Path) -> None:
        _check_ends(path)
        try:
            self._file = pyBigWig.open(str(path))
        except RuntimeError:
            raise ValueError(f"{path}: a damaged bigWig file") from None
        self.path = path
        self._lengths: dict[str, int] = self._file.chroms()
        self._names = {plain(name): name for name in self._lengths}

    def length(self, chrom: str) -> int | None:
        """Bases of a chromosome, None if the file does not have it."""
        name = self._names.get(plain(chrom))
        return None if name is None else self._lengths[name]

    def values(self, chrom: str, start: int, end: int) -> Float32[np.ndarray, "n"]:
        """Values at [start, end), 0-based; 0 where there are none, and beyond the ends of the chromosome.

        Raises:
            ValueError: the file is damaged there, or has a value of which log10(1 + x) does not exist.
        """
        name = self._names[plain(chrom)]
        low, high = max(start, 0), min(end, self._lengths[name])
        values = np.zeros(end - start, dtype=np.float32)
        if low < high:
            try:
                found = self._file.values(name, low, high, numpy=True)
            except RuntimeError:
                raise ValueError(f"{self.path}: damaged at {name}:{low}-{high}") from None
            values[low - start : high - start] = np.nan_to_num(found, nan=0.0, posinf=np.inf, neginf=-np.inf)
        if not ((values > -1) & (values < np.inf)).all():
            raise ValueError(
                f"{self.path}: at {name}:{low}-{high} is a value that is infinite or not above -1"
            )
        return values


def _check_ends(path: Path) -> None:
    """Refuse what is no bigWig, or not all of one: the library behind pyBigWig can crash on such files."""
    with path.open("rb") as file:
        head = file.read(_HEADER)
        file.seek(0, 2)
        file.seek(max(file.tell() - 4, 0))
        tail = file.read()
    if head[:4] not in (struct.pack("<I", _MAGIC), struct.pack(">I", _MAGIC)):
        raise ValueError(f"{path}: not a bigWig file")
    if len(head) < _HEADER or tail != head[:4]:
        raise ValueError(f"{path}: a truncated bigWig file")


class Blacklist:
    """Intervals of several gzipped BED files.

    Raises:
        ValueError: a file is not gzip, is truncated, or a line (which is named) is not an interval.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        found: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        for path in paths:
            for number, line in enumerate(_lines(path), start=1):
                if line.strip() and not line.startswith(("#", "track", "browser")):
                    chrom, start, end = _interval(line, f"{path}, line {number}")
                    found[plain(chrom)].append((start, end))
        self._intervals = {chrom: np.array(sorted(some), dtype=np.int64) for chrom, some in found.items()}

    def within(self, chrom: str, start: int, end: int) -> Int64[np.ndarray, "k 2"]:
        """The intervals [from, to) of a chromosome that overlap [start, end), 0-based."""
        intervals = self._intervals.get(plain(chrom), np.empty((0, 2), dtype=np.int64))
        return intervals[(intervals[:, 0] < end) & (intervals[:, 1] > start)]


def _lines(path: Path) -> list[str]:
    content = path.read_bytes()
    try:
        if not content:
            raise EOFError
        return gzip.decompress(content).decode().splitlines()
    except gzip.BadGzipFile:
        raise ValueError(f"{path}: not a gzip file") from None
    except (EOFError, zlib.error):
        raise ValueError(f"{path}: a truncated or damaged gzip file") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not a BED file") from None


def _interval(line: str, where: str) -> tuple[str, int, int]:
    try:
        chrom, start, end = line.split()[:3]
        interval = chrom, int(start), int(end)
    except ValueError:
        raise ValueError(f"{where}: {line!r} is not chromosome, start, end") from None
    if not 0 <= interval[1] <= interval[2] < 2**63:
        raise ValueError(f"{where}: {line!r} is not an interval: start and end must be in order, from 0")
    return interval


class Cage:
    """Signal of both strands, without the blacklisted intervals."""

    def __init__(self, plus: Path, minus: Path, blacklists: Iterable[Path]) -> None:
        self.tracks = Track(plus), Track(minus)
        self._blacklist = Blacklist(blacklists)

    @classmethod
    def of(cls, sources: Sources) -> "Cage":
        """The signal of the benchmark's files."""
        return cls(sources.plus, sources.minus, (sources.blacklist_plus, sources.blacklist_minus))

    def signal(self, chrom: str, start: int, end: int) -> Float32[np.ndarray, "n 2"]:
        """log10(1 + x) of the values x at [start, end), of the plus and the minus strand.

        An interval of either blacklist sets both strands to 0, as in the benchmark's code (dirichlet-flow-
        matching, promoter_dataset.py).
        """
        values = np.stack([track.values(chrom, start, end) for track in self.tracks], axis=1)
        for low, high in self._blacklist.within(chrom, start, end):
            values[max(low - start, 0) : high - start] = 0
        return np.log1p(values) / np.float32(np.log(10))
