"""Extracted windows, kept in the user's cache as arrays that are mapped into memory: 5 kB a window."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np
from drift_core.files import atomic_path, naming, write_json
from drift_core.runs.datasets import cache_folder
from jaxtyping import Bool, Float16, Int64, UInt8
from numpy.lib.format import dtype_to_descr, write_array_header_1_0
from numpy.typing import NDArray

from drift_promoter.bases import UNKNOWN
from drift_promoter.genome.benchmark import HELD_OUT, LENGTH, MARGIN, ROWS, SPLITS, Sources
from drift_promoter.genome.cage import Cage
from drift_promoter.genome.digests import sha256
from drift_promoter.genome.extract import check, extract
from drift_promoter.genome.locks import locked
from drift_promoter.genome.sequence import Genome, index_fasta
from drift_promoter.genome.table import Table, plain, read_table

VERSION = 1
"""Raise this when the same inputs are to give other windows."""


class Stored(NamedTuple):
    """Windows without an unknown base: those to train on, then for validation, then for testing."""

    bases: UInt8[np.ndarray, "n width"]
    signal: Float16[np.ndarray, "n width 2"]
    chrom: tuple[str, ...]
    tss: Int64[np.ndarray, "n"]
    minus: Bool[np.ndarray, "n"]
    sizes: dict[str, int]
    """How many windows each split has."""
    skipped: int
    """How many windows hold an unknown base, and are not here."""


def stored(sources: Sources, workers: int) -> Stored:
    """Windows of `sources` from the cache, which is filled first if it does not hold them.

    Their folder is named by a digest of all that determines them, and gets its name when it is whole; an
    extraction that was killed is continued. Of several processes one extracts, and the others wait for it.

    Raises:
        ValueError: a file of `sources` is damaged, or they do not fit together, or no window is left to
            train on or to test on; nothing half-written is kept then.
        OSError: a file cannot be read, or the cache cannot be written.
    """
    cache = cache_folder("promoter")
    inputs = {name: sha256(path, cache / "digests.json") for name, path in sources._asdict().items()}
    settings = {"version": VERSION, "length": LENGTH, "margin": MARGIN, "rows": ROWS, **inputs}
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:32]
    folder = cache / f"windows-{key}"
    kept = _read(folder)
    if kept is None:
        with locked(cache / "locks" / key):
            kept = _read(folder)
            if kept is None:
                _make(folder, sources, cache / "index" / f"{inputs['fasta']}.fai", workers)
                kept = _read(folder)
    if kept is None:
        raise OSError(f"{folder} cannot be read though it was just written")
    return kept


def _read(folder: Path) -> Stored | None:
    try:
        meta = json.loads((folder / "meta.json").read_text())
        bases = np.load(folder / "bases.npy", mmap_mode="r", allow_pickle=False)
        signal = np.load(folder / "signal.npy", mmap_mode="r", allow_pickle=False)
        with (folder / "sites.npz").open("rb") as file, np.load(file, allow_pickle=False) as sites:
            chrom, tss, minus = (sites[name] for name in ("chrom", "tss", "minus"))
        return Stored(bases, signal, tuple(chrom.tolist()), tss, minus, meta["sizes"], meta["skipped"])
    except Exception:  # whatever is wrong with the files, they are made again
        return None


def _make(folder: Path, sources: Sources, index: Path, workers: int) -> None:
    part = folder.with_name(f"{folder.name}.part")
    try:
        table = read_table(sources.tss)
        index_fasta(sources.fasta, index)
        with closing(Genome(sources.fasta, index)) as genome:
            check(table, genome, Cage.of(sources))
        blocks = extract(sources, index, table, part, workers)
        _join(blocks, table, part / "whole")
    except ValueError:
        shutil.rmtree(part, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)  # one that could not be read
    (part / "whole").rename(folder)
    shutil.rmtree(part, ignore_errors=True)


def _join(blocks: list[Path], table: Table, folder: Path) -> None:
    unknown = np.empty(len(table), dtype=bool)
    for rows, bases in _arrays(blocks, "bases"):
        unknown[rows] = (bases == UNKNOWN).any(axis=1)
    split = np.array([SPLITS.index(HELD_OUT.get(plain(chrom), "train")) for chrom in table.chrom])
    kept = np.flatnonzero(~unknown)
    kept = kept[np.argsort(split[kept], kind="stable")]
    sizes = dict(zip(SPLITS, np.bincount(split[kept], minlength=len(SPLITS)).tolist(), strict=True))
    _check_sizes(sizes, table.path, int(unknown.sum()))
    place = np.full(len(table), -1)
    place[kept] = np.arange(len(kept))
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("bases", "signal"):
        _write(
            folder / f"{name}.npy", len(kept), ((place[rows], part) for rows, part in _arrays(blocks, name))
        )
    sites = table.take(kept)
    with atomic_path(folder / "sites.npz") as path, path.open("wb") as file:
        np.savez(file, chrom=np.array(sites.chrom), tss=sites.tss, minus=sites.minus)
    write_json(folder / "meta.json", {"sizes": sizes, "skipped": int(unknown.sum())})


def _check_sizes(sizes: dict[str, int], table: Path, unknown: int) -> None:
    """A table without windows for validation is allowed: the miniature's 193 start sites are one."""
    needed = {"train": "train on (chromosomes but 8, 9 and 10)", "test": "test on (chromosomes 8 and 9)"}
    for name, what in needed.items():
        if not sizes[name]:
            raise ValueError(
                f"{table}: no window to {what}; {unknown} windows were left out as they hold an N"
            )


def _arrays(blocks: list[Path], name: str) -> Iterator[tuple[Int64[np.ndarray, "k"], NDArray[np.generic]]]:
    for path in blocks:
        with np.load(path, allow_pickle=False) as block:
            yield block["rows"], block[name]


def _write(
    path: Path, rows: int, parts: Iterable[tuple[Int64[np.ndarray, "k"], NDArray[np.generic]]]
) -> None:
    """Write an array [rows, ...] from some of its rows at a time; those whose place is -1 are left out.

    Not through a memory map, whose owner would be killed if the disk became full.
    """
    with naming(path), path.open("wb") as file:
        begin = 0
        for places, values in parts:
            if not begin:
                shape, descr = (rows, *values.shape[1:]), dtype_to_descr(values.dtype)
                write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
                begin = file.tell()
            for place, value in zip(places.tolist(), values, strict=True):
                if place >= 0:
                    file.seek(begin + place * value.nbytes)
                    file.write(value.tobytes())
        file.flush()
        os.fsync(file.fileno())
