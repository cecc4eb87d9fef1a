"""Time candidates side by side, and measure their memory."""

import ctypes
import gc
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch
from drift_core import Laplace, Sphere, smoothed_score
from drift_core.engine import disabled
from torch import Tensor

from benchmarks.case import Candidates

_BUDGET = 10.0
"""Seconds that a candidate may take before it is not run again."""


class Timing(NamedTuple):
    """Runs of a candidate."""

    seconds: float
    """Median."""
    result: Tensor
    """Of the last run."""


def median_times(candidates: Candidates, repeats: int) -> dict[str, Timing]:
    """Median time of several runs of each candidate; a first one, which may compile, does not count.

    Runs are interleaved, so that all see the same load. A candidate that has taken ten seconds is not run
    again, once a run has counted.
    """
    taken: dict[str, list[float]] = {name: [] for name in candidates}
    results: dict[str, Tensor] = {}
    for turn in range(1 + repeats):
        for name, run in candidates.items():
            if turn > 1 and sum(taken[name]) > _BUDGET:
                continue
            start = time.perf_counter()
            results[name] = run()
            float(results[name].sum())  # waits for the device
            taken[name].append(time.perf_counter() - start)
    return {name: Timing(median(taken[name][1:]), results[name]) for name in candidates}


def extra_memory(build: Callable[[], Candidates], name: str, device: str) -> float | None:
    """Peak memory in MB that one run of a candidate adds to its inputs, measured in a fresh process.

    None if the system does not say, or the process was killed.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        try:
            return process.submit(_extra_memory, build, name, device).result()
        except BrokenProcessPool:
            return None


def _extra_memory(build: Callable[[], Candidates], name: str, device: str) -> float | None:
    """The same, in this process."""
    run = build()[name]
    _load_libraries(device)
    gc.collect()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    if not Path("/proc/self/clear_refs").exists():
        return None
    _return_freed_memory()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from what is resident
    resident = _status("VmRSS")
    run()
    return _status("VmHWM") - resident


def _return_freed_memory() -> None:
    """Give freed memory back to the system, where the run would reuse it unseen (glibc)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _load_libraries(device: str) -> None:
    """Score a few points, so that libraries are loaded and threads started."""
    x = torch.eye(3, device=device)
    smoothed_score(Sphere(), Laplace(1), x, x)
    with disabled():
        smoothed_score(Sphere(), Laplace(1), x, x)


def _status(key: str) -> float:
    """An entry of this process's status, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(key)) / 1024
