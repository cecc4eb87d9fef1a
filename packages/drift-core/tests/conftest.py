"""Clouds of points on every manifold."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from drift_core import (
    SO3,
    Euclidean,
    Hyperboloid,
    Manifold,
    Power,
    Product,
    Sphere,
    Torus,
    TrainConfig,
    train,
)
from drift_core.training.loop import Field
from drift_core.training.samplers import resample
from torch import Tensor, nn

Cloud = Callable[..., Tensor]

_MANIFOLDS: dict[str, tuple[Manifold, tuple[int, ...]]] = {
    "euclidean": (Euclidean(), (3,)),
    "sphere": (Sphere(), (3,)),
    "sphere-9": (Sphere(), (9,)),
    "hyperboloid": (Hyperboloid(), (3,)),
    "torus": (Torus(2), (2,)),
    "rotations": (SO3(), (4,)),
    "product": (Product((Sphere(), 3), (Euclidean(), 2), weights=(1.0, 0.5)), (5,)),
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


class _Net(torch.nn.Module):
    """Noise to points of S^2."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.Linear(3, 3)

    def forward(self, z: Tensor) -> Tensor:
        return torch.nn.functional.normalize(self.layers(z), dim=-1)

    def latent(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.randn(n, 3, generator=generator)


@pytest.fixture
def fit() -> Callable[..., tuple[Field, Tensor]]:
    """Trainer with a new field; it stops at the draw of that number, and goes on with a newer one."""

    def run(
        make_field: Callable[[], Field], data: Tensor, config: TrainConfig, folder: Path, stop: int | None
    ) -> tuple[Field, Tensor]:
        field, rows, calls = make_field(), resample(data), 0

        def sample(n: int, generator: torch.Generator) -> Tensor:
            nonlocal calls
            calls += 1
            if calls == stop:
                raise InterruptedError
            return rows(n, generator)

        try:
            net = train(_Net(), field, sample, config, folder, accelerator=Accelerator(cpu=True), resume=True)
        except InterruptedError:
            return run(make_field, data, config, folder, None)
        return field, net.layers.weight

    return run


class Net(nn.Module):
    """A generator of points of any manifold: what a layer puts out, projected, or as exp of it in SPD."""

    def __init__(self, manifold: Manifold, shape: tuple[int, ...]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.manifold, self.shape = manifold, shape
        self.layer = nn.Linear(5, math.prod(shape))

    def forward(self, z: Tensor) -> Tensor:
        h = 0.3 * self.layer(z).reshape(-1, *self.shape)
        return torch.linalg.matrix_exp(h + h.mT) if self.shape == (2, 2) else self.manifold.projx(h)

    def latent(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.randn(n, 5, generator=generator)


@pytest.fixture
def make_net() -> Callable[[Manifold, tuple[int, ...]], Net]:
    """Maker of a small generator of points of a manifold."""
    return Net


@pytest.fixture
def discrepancy() -> Callable[[Manifold, Net, Tensor], float]:
    """Squared maximum mean discrepancy of a generator's samples and as many data, of a Laplace kernel."""

    def measure(manifold: Manifold, net: Net, data: Tensor) -> float:
        with torch.no_grad():
            x = net(net.latent(len(data), torch.Generator().manual_seed(4)))
        pairs = ((x, x), (data, data), (x, data))
        near, far, across = (float(manifold.cdist(*pair).neg().exp().mean()) for pair in pairs)
        return near + far - 2 * across

    return measure
