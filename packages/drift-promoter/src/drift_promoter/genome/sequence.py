"""Sequence of a genome, read through an index of its FASTA file."""

import os
import time
from pathlib import Path

import numpy as np
from drift_core.files import atomic_path
from jaxtyping import UInt8
from pyfaidx import Faidx, FastaIndexingError

from drift_promoter.bases import UNKNOWN, encode
from drift_promoter.genome.table import plain


def index_fasta(fasta: Path, index: Path) -> None:
    """Write the index (.fai) of a FASTA file to `index`, atomically, unless it is there; a minute for hg38.

    Raises:
        ValueError: the file is not FASTA, or the lines of a sequence differ in length.
    """
    if not index.is_file():
        try:
            with atomic_path(index) as part:
                part.unlink()  # an empty index would be taken for a finished one
                Faidx(fasta, indexname=part).close()
        except (FastaIndexingError, ValueError) as error:
            raise ValueError(f"{fasta}: {error}") from None
    # pyfaidx doubts an index that is older than its file, which a copy of the file would make it.
    now = max(time.time_ns(), fasta.stat().st_mtime_ns)
    os.utime(index, ns=(now, now))


class Genome:
    """Indexed FASTA file whose sequences are called `1` or `chr1`."""

    def __init__(self, fasta: Path, index: Path) -> None:
        self.path = fasta
        self._faidx = Faidx(fasta, indexname=index, as_raw=True, rebuild=False, build_index=False)
        self._names = {plain(name): name for name in self._faidx.index}

    def close(self) -> None:
        """Close the file."""
        self._faidx.close()

    def length(self, chrom: str) -> int | None:
        """Bases of a chromosome, None if the file does not have it."""
        name = self._names.get(plain(chrom))
        return None if name is None else self._faidx.index[name].rlen

    def bases(self, chrom: str, start: int, end: int) -> UInt8[np.ndarray, "n"]:
        """Bases [start, end) of a chromosome, 0-based; what is beyond its ends is unknown."""
        name = self._names[plain(chrom)]
        low, high = max(start, 0), min(end, self._faidx.index[name].rlen)
        bases = np.full(end - start, UNKNOWN, dtype=np.uint8)
        if low < high:
            bases[low - start : high - start] = encode(self._faidx.fetch(name, low + 1, high))
        return bases
