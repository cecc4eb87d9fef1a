"""Three kinds of data to try fields on: a checkerboard on the sphere, random strings, and scans of digits."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from drift_core import Euclidean, Manifold, Sphere
from drift_core.runs import frechet
from drift_core.seeds import generator_for
from drift_core.training import plain_mlp
from drift_simplex import decode
from drift_simplex.geometry import FisherRao, onehot_to_sphere
from drift_synthetic.data import make_problem
from drift_synthetic.metrics import sliced_wasserstein
from huggingface_hub import PyTorchModelHubMixin
from torch import Generator, Tensor, nn

from benchmarks.strings import StringGenerator, random_strings, support_metrics


class Bed(NamedTuple):
    """Data, a generator of them, and what tells how good its samples are."""

    manifold: Manifold
    data: Tensor
    lengthscale: float
    """Of three tried, a factor of 2 apart, the best for one scale without a coupling (seed 1000)."""
    held: float
    """Effective sample size to hold."""
    make: Callable[[], nn.Module]
    steps: int
    batch_size: int
    metric: str
    num_samples: int
    """Samples of one measurement."""
    fresh: Callable[[Generator], Tensor]
    """Draws as many points of the distribution of the data, for the floor."""
    distance: Callable[[Tensor], float]
    """Maps samples to their distance from the data, lower is better."""


class Cloud(nn.Module, PyTorchModelHubMixin):
    """MLP from 16 Gaussian latents to points of R^dim, or of the unit sphere in it."""

    def __init__(self, dim: int, sphere: bool) -> None:
        super().__init__()
        self.sphere, self.network = sphere, plain_mlp(16, 128, 3, dim)

    def forward(self, z: Tensor) -> Tensor:
        """Points for latents."""
        x: Tensor = self.network(z)
        return Sphere().projx(x) if self.sphere else x

    def latent(self, n: int, generator: Generator) -> Tensor:
        """Draw n latents."""
        return torch.randn(n, 16, generator=generator)


@cache
def checkerboard() -> Bed:
    """Checkerboard on S^2, by the sliced Wasserstein distance to fresh points."""
    problem, n = make_problem(), 4_000
    real = problem.sample(n, generator_for(1))
    return Bed(
        Sphere(),
        problem.sample(20_000, generator_for(0)),
        lengthscale=0.3,
        held=16.0,
        make=partial(Cloud, 3, sphere=True),
        steps=400,
        batch_size=256,
        metric="checkerboard on S², 100 x sliced W2",
        num_samples=n,
        fresh=partial(problem.sample, n),
        distance=lambda x: 100 * sliced_wasserstein(x, real),
    )


@cache
def strings() -> Bed:
    """64 random strings of 8 letters out of 4, by the total variation distance."""
    support, n = random_strings(64, 8, 4), 4_000
    points = onehot_to_sphere(support, 4)
    return Bed(
        FisherRao(),
        points,
        lengthscale=0.6,
        held=4.0,
        make=partial(StringGenerator, 8, 4),
        steps=250,
        batch_size=128,
        metric="64 random strings, total variation",
        num_samples=n,
        fresh=lambda generator: points[torch.randint(64, (n,), generator=generator)],
        distance=lambda x: support_metrics(decode(x), support)["tv"],
    )


@cache
def digits() -> Bed:
    """scikit-learn's digits in R^64, by the Frechet distance of pixels to held-out ones."""
    from sklearn.datasets import load_digits

    images = torch.tensor(load_digits().data / 16).float()
    order = torch.randperm(len(images), generator=Generator().manual_seed(0))
    test, data = images[order[:360]], images[order[360:]]
    return Bed(
        Euclidean(),
        data,
        lengthscale=0.9,
        held=16.0,
        make=partial(Cloud, 64, sphere=False),
        steps=200,
        batch_size=256,
        metric="digits in R⁶⁴, Fréchet distance of pixels",
        num_samples=len(test),
        fresh=lambda generator: data[torch.randperm(len(data), generator=generator)[: len(test)]],
        distance=lambda x: frechet(x.numpy(), test.numpy()),
    )


BEDS: dict[str, Callable[[], Bed]] = {"checkerboard": checkerboard, "strings": strings, "digits": digits}


@torch.no_grad()
def draw(model: Any, n: int, seed: int) -> Tensor:
    """Draw n points of a generator, on the CPU."""
    z = model.latent(n, generator_for(seed)).to(next(model.parameters()).device)
    x: Tensor = model(z).cpu()
    return x
