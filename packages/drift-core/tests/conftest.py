"""Clouds of points on every manifold; and shape annotations that are checked."""

from collections.abc import Callable

import pytest
import torch
from jaxtyping import install_import_hook
from torch import Tensor

with install_import_hook("drift_core", "beartype.beartype"):
    from drift_core import Euclidean, Hyperboloid, Manifold, Power, Sphere

Cloud = Callable[..., Tensor]

_MANIFOLDS: dict[str, tuple[Manifold, tuple[int, ...]]] = {
    "euclidean": (Euclidean(), (3,)),
    "sphere": (Sphere(), (3,)),
    "sphere-9": (Sphere(), (9,)),
    "hyperboloid": (Hyperboloid(), (3,)),
    "power-sphere": (Power(Sphere()), (5, 4)),
    "power-hyperboloid": (Power(Hyperboloid()), (2, 3)),
}


@pytest.fixture(params=list(_MANIFOLDS))
def manifold_and_shape(request: pytest.FixtureRequest) -> tuple[Manifold, tuple[int, ...]]:
    """Each manifold with the shape of its points."""
    return _MANIFOLDS[request.param]


@pytest.fixture
def manifold(manifold_and_shape: tuple[Manifold, tuple[int, ...]]) -> Manifold:
    """Each manifold."""
    return manifold_and_shape[0]


@pytest.fixture
def cloud(manifold_and_shape: tuple[Manifold, tuple[int, ...]]) -> Cloud:
    """Sampler of n random points on the manifold, from a seed."""
    manifold, shape = manifold_and_shape

    def draw(n: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
        noise = torch.randn((n, *shape), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        return manifold.projx(noise).to(dtype)

    return draw


@pytest.fixture
def sphere_cloud() -> Cloud:
    """Sampler of n uniform points on S^2, from a seed."""

    def draw(n: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
        noise = torch.randn(n, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        return torch.nn.functional.normalize(noise, dim=-1).to(dtype)

    return draw
