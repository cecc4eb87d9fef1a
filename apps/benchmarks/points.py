"""Cases of scores of points, on four spaces as n, m and d grow."""

from functools import partial
from typing import NamedTuple

import torch
from drift_core import (
    Euclidean,
    Hyperboloid,
    Laplace,
    Manifold,
    RadialKernel,
    Sphere,
    smoothed_score,
)
from torch import Tensor

from benchmarks.baselines import autograd, broadcast_logmap, keops_missing, keops_sphere_laplace, torch_form
from benchmarks.case import Candidates, Case
from benchmarks.handwritten import missing, sphere_laplace

SIZES = (256, 1024, 4096, 16384, 65536)
"""n = m; the largest on S^2 alone."""
QUERIES, REFERENCES = 1024, (8192, 65536, 2**20)
"""n, and m as it grows."""
POINTS, DIMENSIONS = 2048, (2, 8, 64, 256, 1024)
"""n = m, and d as it grows."""
SCORE, TORCH, AUTOGRAD, LOGMAP = (
    "smoothed_score",
    "torch form",
    "autograd of the log-sum-exp",
    "broadcast logmap",
)
KEOPS, LOOP = "KeOps", "hand-written loop"
_PAIRS = {TORCH: 2**30, AUTOGRAD: 2**24, KEOPS: 2**28}
"""Most pairs of the slower candidates."""
_LOGARITHMS = 2**26
"""Most numbers in the tensor of a broadcast logmap."""


class Space(NamedTuple):
    """A manifold, the dimension of its ambient space, and a lengthscale that suits a normal cloud on it."""

    manifold: Manifold
    dim: int
    lengthscale: float


SPACES = {
    "S2": Space(Sphere(), 3, 0.3),
    "R2": Space(Euclidean(), 2, 0.3),
    "R64": Space(Euclidean(), 64, 3.0),
    "H2": Space(Hyperboloid(), 3, 0.3),
}


def growing_n(name: str, device: str) -> list[Case]:
    """A space with the Laplace kernel, as n = m grows."""
    sizes = SIZES if name == "S2" else SIZES[:-1]
    return [_case(name, n, n, SPACES[name], device, f"{name}, n = m = {n:,}") for n in sizes]


def growing_m(device: str) -> list[Case]:
    """S^2 with the Laplace kernel, as m grows."""
    return [
        _case("references", QUERIES, m, SPACES["S2"], device, f"S2, n = {QUERIES:,}, m = {m:,}")
        for m in REFERENCES
    ]


def growing_d(device: str) -> list[Case]:
    """R^d with the Laplace kernel, as d grows."""
    spaces = [Space(Euclidean(), d, 0.4 * d**0.5) for d in DIMENSIONS]
    return [
        _case("dimensions", POINTS, POINTS, space, device, f"R{space.dim}, n = m = {POINTS:,}")
        for space in spaces
    ]


def skipped() -> dict[str, str]:
    """Candidates that this machine lacks, and why."""
    reasons = {KEOPS: keops_missing(), LOOP: missing()}
    return {name: reason for name, reason in reasons.items() if reason}


def _case(group: str, n: int, m: int, space: Space, device: str, name: str) -> Case:
    build = partial(_candidates, n, m, space, device)
    memory = tuple(label for label in (SCORE, TORCH) if n * m <= _PAIRS.get(label, n * m))
    return Case(group, name, {"n": n, "m": m, "d": space.dim}, build, memory)


def _candidates(n: int, m: int, space: Space, device: str) -> Candidates:
    """The score and its baselines, but for those that this machine lacks or that would take too long."""
    x, y = cloud(space, n, 0, device), cloud(space, m, 1, device)
    kernel = Laplace(space.lengthscale)
    run = partial(gradient, space.manifold, kernel, x, y)
    candidates: Candidates = {
        SCORE: run,
        TORCH: torch_form(run),
        AUTOGRAD: partial(autograd, space.manifold, kernel, x, y),
    }
    if n * m * space.dim <= _LOGARITHMS:
        candidates[LOGMAP] = partial(broadcast_logmap, space.manifold, kernel, x, y)
    if isinstance(space.manifold, Sphere):
        candidates[KEOPS] = partial(keops_sphere_laplace, x, y, space.lengthscale)
        if device == "cpu":
            candidates[LOOP] = partial(sphere_laplace, x, y, space.lengthscale)
    lacking = skipped()
    return {
        label: run
        for label, run in candidates.items()
        if label not in lacking and n * m <= _PAIRS.get(label, n * m)
    }


def cloud(space: Space, n: int, seed: int, device: str) -> Tensor:
    """Random points: uniform on a sphere, elsewhere normal about the origin."""
    x = torch.randn(n, space.dim, generator=torch.Generator().manual_seed(seed))
    if isinstance(space.manifold, Hyperboloid):
        x[:, 0] = (1 + x[:, 1:].square().sum(-1)).sqrt()
    return space.manifold.projx(x).to(device)


def gradient(manifold: Manifold, kernel: RadialKernel, x: Tensor, y: Tensor) -> Tensor:
    """Gradient of the smoothed score."""
    return smoothed_score(manifold, kernel, x, y).gradient
