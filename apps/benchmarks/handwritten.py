"""A hand-written loop for one case alone (sphere_laplace.c), to see what generality costs."""

import ctypes
import os
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import torch
from drift_core.engine.build import FLAGS
from torch import Tensor

_BLOCK = 256
"""References that the loop takes at once."""


def sphere_laplace(x: Tensor, y: Tensor, lengthscale: float) -> Tensor:
    """Gradients of log sum_j exp(-r_ij / l) on S^2, float32 [n, 3], by all threads.

    Raises ValueError unless the number of references is a multiple of 256, and RuntimeError if the loop
    cannot be compiled (see `missing`).
    """
    if len(y) % _BLOCK:
        raise ValueError(f"the loop takes references by {_BLOCK}, not {len(y)}")
    lib, columns, gradient = _library(), y.T.contiguous(), torch.empty_like(x)

    def rows(part: Tensor, out: Tensor) -> None:
        lib.sphere_laplace(
            *(ctypes.c_int64(len(part)), ctypes.c_int64(len(y)), ctypes.c_float(1 / lengthscale)),
            *(ctypes.c_void_p(t.data_ptr()) for t in (part, columns, out)),
        )

    threads = torch.get_num_threads()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(rows, x.chunk(threads), gradient.chunk(threads)))
    return gradient


def missing() -> str | None:
    """Why the loop cannot be used; None if it can."""
    try:
        _library()
    except RuntimeError as error:
        return str(error)
    return None


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL:
    """Compile and load the loop."""
    compiler = shutil.which(os.environ.get("CC") or "cc")
    if compiler is None:
        raise RuntimeError("there is no C compiler")
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "sphere_laplace.so")
        source = str(Path(__file__).with_name("sphere_laplace.c"))
        compiled = subprocess.run(
            [compiler, *FLAGS, "-shared", "-fopenmp-simd", source, "-o", path, "-lm"],
            capture_output=True,
            text=True,
            check=False,
        )
        if compiled.returncode:
            raise RuntimeError(f"{compiler} failed: {compiled.stderr.strip().splitlines()[-1]}")
        return ctypes.CDLL(path)  # stays mapped after the file is gone
