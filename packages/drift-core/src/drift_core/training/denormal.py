"""Arithmetic without denormal numbers, which CPUs are slow at."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

_DENORMAL = 1e-40


@contextmanager
def denormals_as_zero() -> Iterator[None]:
    """Flush denormal numbers to zero (torch.set_flush_denormal) within the context.

    The tails of activations are full of them, and a CPU takes a hundred times as long for each: late in
    training a convolutional network's backward pass took 6.4 s instead of 0.4 s. Threads inherit the setting
    from the thread that starts them, so enter the context before torch starts its own.
    """
    for number in (np.float32, np.float64):
        np.finfo(number)  # read once; read later, numpy would warn that these numbers are zero
    already = not bool(torch.full((1,), _DENORMAL) * 1)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(already)
