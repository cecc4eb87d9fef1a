"""Cases of several kernels on S^2, and of the field of near neighbours."""

from collections.abc import Callable
from functools import partial

import torch
from drift_core import (
    Batch,
    Gaussian,
    KernelField,
    Laplace,
    Matern,
    NearestField,
    RadialKernel,
    Sphere,
    SphericalMatern,
)
from drift_core.lengthscale import Lengthscales

from benchmarks.baselines import torch_form
from benchmarks.case import Candidates, Case
from benchmarks.points import SPACES, TORCH, cloud, gradient

POINTS = 4096
"""n = m of the kernels."""
QUERIES, DATA, BUFFER = 1024, 102_400, 16_384
"""Samples, data and replay buffer of the near neighbours."""
LAPLACE, SPECTRAL, NEAREST = "Laplace", "SphericalMatern, by table", "NearestField"
_KERNELS: dict[str, RadialKernel] = {
    LAPLACE: Laplace(0.3),
    "Gaussian": Gaussian(0.3),
    "Matern 3/2": Matern(0.3, 1.5),
    "Matern 1.3, by table": Matern(0.3, 1.3),
    SPECTRAL: SphericalMatern(0.3, 1.5),
}


def kernels(device: str) -> list[Case]:
    """Several kernels on S^2: closed forms, and tables of others."""
    build, name = partial(_kernel_candidates, POINTS, device), f"kernels on S2, n = m = {POINTS:,}"
    return [Case("kernels", name, {"n": POINTS, "m": POINTS, "d": 3}, build, same=False)]


def nearest(device: str) -> list[Case]:
    """`NearestField` on S^2 after its switch to near neighbours, its searches included."""
    build = partial(_nearest_candidates, QUERIES, DATA, BUFFER, device)
    name = f"NearestField on S2, n = {QUERIES:,}, m = {DATA:,}"
    return [Case("nearest", name, {"n": QUERIES, "m": DATA, "d": 3}, build)]


def _kernel_candidates(n: int, device: str) -> Candidates:
    x, y = (cloud(SPACES["S2"], n, seed, device) for seed in (0, 1))
    runs: Candidates = {name: partial(gradient, Sphere(), kernel, x, y) for name, kernel in _KERNELS.items()}
    return runs | {f"{name}, {TORCH}": torch_form(runs[name]) for name in (LAPLACE, SPECTRAL)}


def _nearest_candidates(n: int, m: int, buffer: int, device: str) -> Candidates:
    x, samples, data = (cloud(SPACES["S2"], k, seed, device) for seed, k in enumerate((n, buffer, m)))
    batch = Batch(x, data[:n])

    def candidate() -> Callable[[], torch.Tensor]:
        field = NearestField(
            KernelField(Sphere(), Laplace, Lengthscales((0.02,))), data, buffer_size=buffer, tolerance=0.99
        )
        field.observe(Batch(x, data[:n], model=samples))
        return lambda: field(batch).field

    plain = torch_form(candidate())
    plain()  # makes its index of the data without the engine
    return {NEAREST: candidate(), TORCH: plain}
