"""Tables of transcription start sites."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64

from drift_promoter.genome.benchmark import ROWS

COLUMNS = ("chr", "TSS", "strand")
"""The columns of a table that are read."""


def plain(chrom: str) -> str:
    """Name of a chromosome without what files differ in: `chr1` is `1`, and `chrM` is `MT`."""
    name = chrom.removeprefix("chr")
    return "M" if name == "MT" else name


@dataclass(frozen=True)
class Table:
    """Start sites: 0-based positions on strands of chromosomes."""

    path: Path
    chrom: tuple[str, ...]
    tss: Int64[np.ndarray, "n"]
    minus: Bool[np.ndarray, "n"]
    """Whether a start site is on the minus strand."""
    line: tuple[int, ...]
    """Where each one stands in the file, from 1."""

    def __len__(self) -> int:
        return len(self.chrom)

    def take(self, rows: Int64[np.ndarray, "k"]) -> "Table":
        """Some of the rows."""
        chrom, line = (tuple(column[row] for row in rows) for column in (self.chrom, self.line))
        return Table(self.path, chrom, self.tss[rows], self.minus[rows], line)

    def where(self, row: int) -> str:
        """How messages name a row."""
        return f"{self.path}, line {self.line[row]}"


def read_table(path: Path, rows: int = ROWS) -> Table:
    """Read the first rows of a tab-separated table with the columns chr, TSS and strand.

    Raises:
        ValueError: a column is missing, there is no row, a TSS is not a whole number from 0 or a strand not
            + or -; the line is named.
        OSError: the file cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not a table: its text is not UTF-8") from None
    header = lines[0].split("\t") if lines else []
    missing = [column for column in COLUMNS if column not in header]
    if missing:
        raise ValueError(
            f"{path}: the table has no column {' or '.join(missing)}; "
            "the first line must name the columns chr, TSS and strand, separated by tabs"
        )
    numbers = [number for number, line in enumerate(lines[1:], start=2) if line.strip()][:rows]
    if not numbers:
        raise ValueError(f"{path}: the table has no row")
    columns = [header.index(column) for column in COLUMNS]
    records = [_record(lines[number - 1], columns, f"{path}, line {number}") for number in numbers]
    chrom, tss, minus = zip(*records, strict=True)
    return Table(path, chrom, np.array(tss, dtype=np.int64), np.array(minus), tuple(numbers))


def _record(line: str, columns: list[int], where: str) -> tuple[str, int, bool]:
    fields = line.split("\t")
    if len(fields) <= max(columns):
        raise ValueError(
            f"{where}: {len(fields)} columns; chr, TSS and strand are up to the {max(columns) + 1}th"
        )
    chrom, tss, strand = (fields[column].strip() for column in columns)
    if not re.fullmatch("[0-9]{1,12}", tss):
        raise ValueError(f"{where}: the TSS {tss!r} is not a whole number from 0")
    if strand not in ("+", "-"):
        raise ValueError(f"{where}: the strand {strand!r} is neither + nor -")
    return chrom, int(tss), strand == "-"
