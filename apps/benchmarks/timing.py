"""Time candidates side by side, and measure memory."""

import platform
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor


class Timing(NamedTuple):
    """The fastest run of a candidate."""

    seconds: float
    result: Tensor


def best_times(candidates: dict[str, Callable[[], Tensor]], repeats: int) -> dict[str, Timing]:
    """Fastest of several runs of each candidate; runs are interleaved, so that all see the same load."""
    best: dict[str, Timing] = {}
    for _ in range(repeats):
        for name, run in candidates.items():
            start = time.perf_counter()
            result = run()
            float(result.sum())  # waits for the device
            seconds = time.perf_counter() - start
            if name not in best or seconds < best[name].seconds:
                best[name] = Timing(seconds, result)
    return best


def peak_memory() -> float:
    """Peak resident memory of this process in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def processor(device: str) -> str:
    """Name of the GPU or, for the CPU, name of the processor, number of threads and torch version."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    table = Path("/proc/cpuinfo")
    lines = table.read_text().splitlines() if table.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}"
