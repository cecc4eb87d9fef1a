"""Windows around transcription start sites, cut out of the genome and its signal by several processes."""

import multiprocessing
import os
import signal as signals
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from functools import partial
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import numpy as np
from drift_core.files import atomic_path
from jaxtyping import Float16, Int64, UInt8
from numpy.lib.stride_tricks import sliding_window_view
from tqdm.auto import tqdm

from drift_promoter.bases import reverse_complement
from drift_promoter.genome.benchmark import LENGTH, MARGIN, Sources
from drift_promoter.genome.cage import Cage
from drift_promoter.genome.sequence import Genome
from drift_promoter.genome.table import Table

WIDTH = LENGTH + 2 * MARGIN
"""Base pairs that are kept of a promoter."""

BLOCK = 1024
"""Windows that are extracted, and saved, at a time: 5 MB."""

_GAP = 4096
"""Windows further apart than this (base pairs) are read separately."""


def check(table: Table, genome: Genome, cage: Cage) -> None:
    """Raise ValueError, naming file and line, for a start site that one of the files does not have."""
    names = np.array(table.chrom)
    chroms, first = (found.tolist() for found in np.unique(names, return_index=True))
    for source in (genome, *cage.tracks):
        for chrom, row in zip(chroms, first, strict=True):
            length = source.length(chrom)
            if length is None:
                raise ValueError(f"{source.path}: no chromosome {chrom!r}, which {table.where(row)} names")
            beyond = np.flatnonzero((names == chrom) & (table.tss >= length)).tolist()
            if beyond:
                raise ValueError(
                    f"{table.where(beyond[0])}: the TSS {table.tss[beyond[0]]} is beyond {chrom}, "
                    f"which has {length} bases in {source.path}"
                )


def cut(
    genome: Genome, cage: Cage, table: Table
) -> tuple[UInt8[np.ndarray, "n width"], Float16[np.ndarray, "n width 2"]]:
    """Bases and log10(1 + CAGE) of a window for every row, both in the direction of its strand.

    A window is [TSS - 512, TSS + 512), one base further right on the minus strand, and 10 bases on both
    sides; track 0 is the signal of its own strand. Rows that follow one another and overlap or lie near are
    cut out of one interval, which is read once: sorted rows are fast.
    """
    start = table.tss + table.minus - WIDTH // 2
    bases = np.empty((len(table), WIDTH), dtype=np.uint8)
    signal = np.empty((len(table), WIDTH, 2), dtype=np.float16)
    for some in _intervals(table.chrom, start):
        chrom, low, high = table.chrom[some.start], int(start[some].min()), int(start[some].max()) + WIDTH
        at = start[some] - low
        bases[some] = sliding_window_view(genome.bases(chrom, low, high), WIDTH)[at]
        both_strands = cage.signal(chrom, low, high).astype(np.float16)
        signal[some] = sliding_window_view(both_strands, WIDTH, axis=0)[at].swapaxes(1, 2)
    bases[table.minus] = reverse_complement(bases[table.minus])
    signal[table.minus] = signal[table.minus, ::-1, ::-1]
    return bases, signal


def _intervals(chrom: tuple[str, ...], start: Int64[np.ndarray, "n"]) -> Iterator[slice]:
    """Runs of rows on one chromosome without a wide gap."""
    near = np.abs(np.diff(start)) <= WIDTH + _GAP
    bounds = [i + 1 for i in range(len(near)) if not near[i] or chrom[i] != chrom[i + 1]]
    for low, high in zip([0, *bounds], [*bounds, len(chrom)], strict=True):
        yield slice(low, high)


def extract(sources: Sources, index: Path, table: Table, folder: Path, workers: int) -> list[Path]:
    """Extract all windows of a table in blocks, each a file of `folder` with arrays rows, bases and signal.

    Blocks whose files are there already are not made again. Several workers are processes that are spawned,
    and that end with this one even where it is killed.

    Returns: the files.

    Raises:
        ValueError: an input file is damaged.
        OSError: a file cannot be written, or a worker was killed.
    """
    order = np.lexsort((table.tss + table.minus, np.array(table.chrom)))
    blocks = {folder / f"{i // BLOCK:05}.npz": order[i : i + BLOCK] for i in range(0, len(order), BLOCK)}
    left = {path: rows for path, rows in blocks.items() if not _is_whole(path)}
    tasks = [
        partial(_save_block, sources, index, table.take(rows), rows, path) for path, rows in left.items()
    ]
    done = len(table) - sum(map(len, left.values()))
    with tqdm(total=len(table), initial=done, desc="extract", unit=" windows", leave=False) as bar:
        for count in _run(tasks, min(workers, len(tasks))):
            bar.update(count)
    return list(blocks)


def _is_whole(path: Path) -> bool:
    try:
        with ZipFile(path) as file:
            return file.testzip() is None
    except (OSError, BadZipFile):
        return False


def _save_block(sources: Sources, index: Path, table: Table, rows: Int64[np.ndarray, "k"], path: Path) -> int:
    with closing(Genome(sources.fasta, index)) as genome:
        bases, signal = cut(genome, Cage.of(sources), table)
    with atomic_path(path) as part, part.open("wb") as file:
        np.savez(file, rows=rows, bases=bases, signal=signal)
    return len(rows)


def _run(tasks: Iterable[Callable[[], int]], workers: int) -> Iterator[int]:
    """What the tasks return, as they end."""
    if workers <= 1:
        yield from (task() for task in tasks)
        return
    spawn = multiprocessing.get_context("spawn")  # forked threads of torch would hang
    with ProcessPoolExecutor(workers, spawn, initializer=_end_with_parent) as pool:
        try:
            for future in as_completed([pool.submit(task) for task in tasks]):
                yield future.result()
        except BrokenProcessPool:
            raise OSError("a worker of the extraction was killed; run again to continue it") from None
        finally:
            pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """Let a worker end when its parent is gone; it would wait for tasks for ever."""
    signals.signal(signals.SIGINT, signals.SIG_IGN)  # the parent ends it

    def watch() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
