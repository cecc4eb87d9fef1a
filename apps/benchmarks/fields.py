"""Cases of several kernels, of scores by eigenfunctions, of near neighbours, of couplings and of classes."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from drift_core import (
    SO3,
    Batch,
    ConditionalField,
    Drift,
    Field,
    Gaussian,
    KernelField,
    Laplace,
    Manifold,
    Matern,
    NearestField,
    RadialKernel,
    Sinkhorn,
    SpectralKernel,
    Sphere,
    SphericalMatern,
    geometric_mean,
    rotation_basis,
    smoothed_score,
    spectral_score,
)
from drift_core.lengthscale import Lengthscales
from drift_core.original import OriginalField

from benchmarks.baselines import torch_form
from benchmarks.case import Candidates, Case
from benchmarks.points import SPACES, TORCH, Space, cloud, gradient

POINTS = 4096
"""n = m of the kernels."""
QUERIES, DATA, BUFFER = 1024, 102_400, 16_384
"""Samples, data and replay buffer of the near neighbours."""
ROTATIONS, MOST_PAIRS = (1024, 4096, 16384, 65536), 2**28
"""n = m of scores by eigenfunctions, and pairs up to which they are beside those of all pairs."""
CLASSES = 10, 100
"""Classes of a step."""
LAPLACE, SPECTRAL, NEAREST = "Laplace", "SphericalMatern, by table", "NearestField"
LINEAR, PAIRWISE = "spectral_score", "smoothed_score"
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


def eigenfunctions(device: str) -> list[Case]:
    """The heat kernel on rotations by its 165 eigenfunctions, and by all pairs, as n = m grows."""
    return [
        Case(
            "eigenfunctions",
            f"rotations, n = m = {n:,}",
            {"n": n, "m": n, "d": 4},
            partial(_eigenfunction_candidates, n, device),
        )
        for n in ROTATIONS
    ]


def _eigenfunction_candidates(n: int, device: str) -> Candidates:
    """Rotations are quaternions up to sign, at half the angle: a kernel of S^3 summed over both signs."""
    x, y = (cloud(Space(SO3(), 4, 1.0), n, seed, device) for seed in (0, 1))
    kernel, sphere = SpectralKernel(rotation_basis, 1.0), SphericalMatern(0.5, math.inf, dim=3)
    both = torch.cat([y, -y])
    candidates: Candidates = {
        LINEAR: lambda: spectral_score(SO3(), kernel, x, y).gradient,
        PAIRWISE: lambda: smoothed_score(Sphere(), sphere, x, both).gradient / 4,
    }
    return {name: run for name, run in candidates.items() if name == LINEAR or n * n <= MOST_PAIRS}


def couplings(device: str) -> list[Case]:
    """Fields with couplings on R^64, and the field of the original method."""
    name = f"couplings on R64, n = m = {QUERIES:,}"
    sizes = {"n": QUERIES, "m": QUERIES, "d": 64}
    return [Case("couplings", name, sizes, partial(_coupled_candidates, QUERIES, device), same=False)]


def _coupled_candidates(n: int, device: str) -> Candidates:
    space = SPACES["R64"]
    batch = Batch(cloud(space, n, 0, device), cloud(space, n, 1, device))
    plain = KernelField(space.manifold, Laplace, Lengthscales((space.lengthscale,)))
    fields: dict[str, Field] = {
        "KernelField": plain,
        "geometric_mean": replace(plain, coupling=geometric_mean),
        "Sinkhorn(10)": replace(plain, coupling=Sinkhorn(10)),
        "OriginalField": OriginalField(space.manifold),
    }
    return {label: partial(_drift, field, batch) for label, field in fields.items()}


def classes(device: str) -> list[Case]:
    """Conditional fields of few and of many classes, beside one call of the wrapped field a class."""
    return [
        Case(
            "classes",
            f"{number} classes on {space}{', Sinkhorn(10)' if coupled else ''}, n = m = {QUERIES:,}",
            {"n": QUERIES, "m": QUERIES, "d": SPACES[space].dim},
            partial(_class_candidates, space, number, coupled, device),
        )
        for space, coupled in (("S2", False), ("R64", False), ("S2", True))
        for number in CLASSES
    ]


@dataclass(frozen=True)
class _OneByOne:
    """A field that does not say that it is separable."""

    field: Field

    @property
    def manifold(self) -> Manifold:
        return self.field.manifold

    def __call__(self, batch: Batch) -> Drift:
        return self.field(batch)


def _class_candidates(name: str, number: int, coupled: bool, device: str) -> Candidates:
    space, labels = SPACES[name], torch.arange(QUERIES, device=device) % number
    x, data = (cloud(space, QUERIES, seed, device) for seed in (0, 1))
    batch = Batch(x, data, condition=labels, data_condition=labels)
    field = KernelField(space.manifold, Laplace, Lengthscales((space.lengthscale,)))
    if coupled:
        field = replace(field, coupling=Sinkhorn(10))
    fields: dict[str, Field] = {"ConditionalField": field, "class by class": _OneByOne(field)}
    return {label: partial(_drift, ConditionalField(part), batch) for label, part in fields.items()}


def _drift(field: Field, batch: Batch) -> torch.Tensor:
    return field(batch).field


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
