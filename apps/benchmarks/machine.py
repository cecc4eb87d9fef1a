"""The machine, and its own ceilings: what no computation on it can exceed."""

import os
from collections.abc import Callable

import torch
from drift_core.runs.environment import processor
from torch import Tensor

from benchmarks.timing import median_times

_SIDE, _COPIED, _EXPONENTS, _LOOPS = 2048, 2**26, 2**17, 64
"""Side of the matrices, numbers copied, and exponentials at once (they fit the cache) and in sequence."""


def machine(device: str) -> dict[str, str | int | float]:
    """Processor or GPU, cores, threads, version of torch, and the load of the last minute."""
    return {
        "processor": torch.cuda.get_device_name() if device == "cuda" else processor(),
        "device": device,
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "load": round(os.getloadavg()[0], 1),
    }


def ceilings(device: str, repeats: int) -> dict[str, float]:
    """Rates per second: operations of a float32 matrix product, bytes of a copy, exponentials."""
    a = torch.ones(_SIDE, _SIDE, device=device)
    source, target = torch.ones(_COPIED, device=device), torch.zeros(_COPIED, device=device)
    t, out = -torch.ones(_EXPONENTS, device=device), torch.empty(_EXPONENTS, device=device)

    def exponentials() -> Tensor:
        for _ in range(_LOOPS):
            torch.exp(t, out=out)
        return out[:1]

    runs: dict[str, tuple[float, Callable[[], Tensor]]] = {
        "sgemm_flops": (2 * _SIDE**3, lambda: (a @ a)[:1]),
        "copy_bytes": (8 * _COPIED, lambda: target.copy_(source)[:1]),
        "exps": (_LOOPS * _EXPONENTS, exponentials),
    }
    times = median_times({name: run for name, (_, run) in runs.items()}, repeats)
    return {name: work / times[name].seconds for name, (work, _) in runs.items()}
