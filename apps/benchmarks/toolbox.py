"""Couplings and scales on three kinds of data: which of them help what."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, stdev
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from drift_core import (
    AdaptiveField,
    BalancedField,
    Euclidean,
    Field,
    HeldSampleSize,
    KernelField,
    Laplace,
    Manifold,
    NormalizedField,
    Sinkhorn,
    Sphere,
    SumField,
    TrainConfig,
    geometric_mean,
    rows_only,
    train,
)
from drift_core.fields import Coupling
from drift_core.lengthscale import Lengthscales
from drift_core.original import OriginalField
from drift_core.training import plain_mlp, resample
from drift_core.training.learner import Sampler
from drift_simplex.geometry import FisherRao, onehot_to_sphere
from drift_synthetic.data import make_problem
from drift_synthetic.metrics import sliced_wasserstein
from torch import Generator, Tensor, nn

from benchmarks.strings import StringGenerator, random_strings, support_metrics

SEEDS = (0, 1, 2)
"""Seeds of weights, latents and data."""
_STEP = 0.2
"""Step of a sample, in units of the lengthscale: a score of the Laplace kernel is at most 1 over it."""
COUPLINGS: dict[str, Coupling] = {
    "rows": rows_only,
    "rows x columns": geometric_mean,
    "Sinkhorn": Sinkhorn(5),
}


class Bed(NamedTuple):
    """A data set to train on, with what it takes."""

    manifold: Manifold
    data: Tensor
    lengthscale: float
    held: float
    """Effective sample size to hold."""
    make: Callable[[], nn.Module]
    steps: int
    batch_size: int
    metric: str
    measure: Callable[[Any, int], float]
    """Maps a generator and a seed to the metric, lower is better."""
    floor: float
    """Metric of fresh data, as many as are generated."""


class Cloud(nn.Module):
    """MLP from 16 Gaussian latents to points."""

    def __init__(self, manifold: Manifold, dim: int) -> None:
        super().__init__()
        self.manifold, self.network = manifold, plain_mlp(16, 128, 3, dim)

    def forward(self, z: Tensor) -> Tensor:
        """Points for latents."""
        return self.manifold.projx(self.network(z))

    def latent(self, n: int, generator: Generator) -> Tensor:
        """Draw n latents."""
        return torch.randn(n, 16, generator=generator)


def checkerboard() -> Bed:
    """Checkerboard on S^2, by the sliced Wasserstein distance to fresh data."""
    problem = make_problem()
    fresh, other = (problem.sample(1_000, Generator().manual_seed(seed)) for seed in (1, 2))
    return Bed(
        Sphere(),
        problem.sample(20_000, Generator().manual_seed(0)),
        lengthscale=0.3,
        held=16.0,
        make=lambda: Cloud(Sphere(), 3),
        steps=200,
        batch_size=256,
        metric="checkerboard on S², 100 x sliced W2",
        measure=lambda model, seed: 100 * sliced_wasserstein(_draw(model, 1_000, seed), fresh),
        floor=100 * sliced_wasserstein(other, fresh),
    )


def strings() -> Bed:
    """64 random strings of 8 letters out of 4, by the total variation distance."""
    support = random_strings(64, 8, 4)
    real = support[torch.randint(64, (4_000,), generator=Generator().manual_seed(2))]

    def measure(model: StringGenerator, seed: int) -> float:
        return support_metrics(model.sample(4_000, Generator().manual_seed(seed)), support)["tv"]

    return Bed(
        FisherRao(),
        onehot_to_sphere(support, 4),
        lengthscale=0.3,
        held=4.0,
        make=lambda: StringGenerator(8, 4),
        steps=200,
        batch_size=128,
        metric="64 random strings, total variation",
        measure=measure,
        floor=support_metrics(real, support)["tv"],
    )


def digits() -> Bed:
    """scikit-learn's digits in R^64, by the Frechet distance of pixels to held-out ones."""
    from sklearn.datasets import load_digits

    images = torch.tensor(load_digits().data / 16).float()
    order = torch.randperm(len(images), generator=Generator().manual_seed(0))
    test, data = images[order[:360]], images[order[360:]]
    return Bed(
        Euclidean(),
        data,
        lengthscale=1.8,
        held=16.0,
        make=lambda: Cloud(Euclidean(), 64),
        steps=200,
        batch_size=256,
        metric="digits, Fréchet distance of pixels",
        measure=lambda model, seed: frechet(_draw(model, 360, seed), test),
        floor=frechet(data[:360], test),
    )


def frechet(x: Tensor, y: Tensor) -> float:
    """Frechet distance between the normal distributions with the moments of two clouds [n, d]."""
    x, y = x.double(), y.double()
    a, b = torch.cov(x.T), torch.cov(y.T)
    overlap = torch.linalg.eigvals(a @ b).real.clamp_min(0).sqrt().sum()
    return float((x.mean(0) - y.mean(0)).square().sum() + a.trace() + b.trace() - 2 * overlap)


def fields_of(bed: Bed) -> dict[str, tuple[Field, float]]:
    """Fields of a table's rows, with their step sizes."""
    found: dict[str, tuple[Field, float]] = {}
    step = _STEP * bed.lengthscale

    def at(coupling: Coupling, factor: float = 1.0) -> KernelField:
        scales = Lengthscales((factor * bed.lengthscale,))
        return KernelField(bed.manifold, Laplace, scales, coupling=coupling)

    for name, coupling in COUPLINGS.items():
        found[f"{name}, one scale"] = at(coupling), step * bed.lengthscale
        several = [NormalizedField(at(coupling, factor)) for factor in (0.5, 1.0, 2.0)]
        found[f"{name}, three of unit length"] = SumField(several, [1 / 3] * 3), step
        held = AdaptiveField(at(coupling), HeldSampleSize(bed.held))
        found[f"{name}, sample size held"] = NormalizedField(held), step
    found["semi-dual, one scale"] = BalancedField(at(rows_only), bed.data), step * bed.lengthscale
    found["the original field"] = OriginalField(bed.manifold), step / 3
    return found


def fit(bed: Bed, field: Field, step_size: float, seed: int) -> Any:
    """Train a network on a field."""
    torch.manual_seed(seed)
    model = bed.make()
    config = TrainConfig.of(
        steps=bed.steps,
        batch_size=bed.batch_size,
        lr=3e-3,
        warmup_steps=20,
        decay_fraction=0.5,
        step_size=step_size,
        max_step=1.0,
        seed=seed,
    )
    data: Sampler = resample(torch.arange(len(bed.data)) if isinstance(field, BalancedField) else bed.data)
    with TemporaryDirectory() as folder:
        return train(model, field, data, config, Path(folder))


def benchmark() -> None:
    """Train every row on every data set, and print the table in Markdown as it grows."""
    start, columns = time.process_time(), {}
    for bed in (checkerboard(), strings(), digits()):
        found: dict[str, list[float]] = {}
        for seed in SEEDS:
            for name, (field, step) in fields_of(bed).items():  # new ones, for some learn
                found.setdefault(name, []).append(bed.measure(fit(bed, field, step, seed), seed))
        columns[bed.metric] = (found, bed.floor)
        print(f"{bed.metric}: done after {time.process_time() - start:.0f} CPU s", flush=True)
    print(table(columns))


def table(columns: dict[str, tuple[dict[str, list[float]], float]]) -> str:
    """Markdown: means and standard deviations; bold: the lowest, and what ties with it."""
    rows = list(next(iter(columns.values()))[0])
    lines = [" | ".join(["| field", *columns]) + " |", "|---" * (len(columns) + 1) + "|"]
    best = {metric: min(found.values(), key=fmean) for metric, (found, _) in columns.items()}
    for name in rows:
        cells = []
        for metric, (found, _) in columns.items():
            text = f"{fmean(found[name]):.3g} ± {stdev(found[name]):.2g}"
            cells.append(f"**{text}**" if ties(found[name], best[metric]) else text)
        lines.append(" | ".join([f"| {name}", *cells]) + " |")
    floors = [f"{floor:.3g}" for _, floor in columns.values()]
    return "\n".join([*lines, " | ".join(["| *floor*", *floors]) + " |"])


def ties(a: list[float], b: list[float]) -> bool:
    """Whether means differ by at most twice the standard error of their difference."""
    error = math.sqrt((stdev(a) ** 2 + stdev(b) ** 2) / len(a))
    return abs(fmean(a) - fmean(b)) <= 2 * error


@torch.no_grad()
def _draw(model: Cloud, n: int, seed: int) -> Tensor:
    x: Tensor = model(model.latent(n, Generator().manual_seed(100 + seed)))
    return x
