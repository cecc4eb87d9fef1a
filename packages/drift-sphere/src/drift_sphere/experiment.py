"""A run on the sphere: its settings, its parts, and the report that it ends with."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from drift_core import Batch, Euclidean, KernelField, NearestField, Sphere, longest_step
from drift_core.kernel.by_name import make_kernel
from drift_core.lengthscale import auto_lengthscale, checked_lengthscales, shortest_lengthscale
from drift_core.runs.figures import training_figure
from drift_core.runs.metrics import Metrics
from drift_core.runs.model import load_model, save_model
from drift_core.seeds import generator_for
from drift_core.training.config import RunConfig, check_range
from drift_core.training.records import read_records
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from drift_sphere.coordinates import sphere_to_latlon, spiral_grid
from drift_sphere.data import Split, load
from drift_sphere.evaluate import evaluate
from drift_sphere.figures import density_figure, field_figure, samples_figure
from drift_sphere.metrics import kernel_sum, mmd2_unbiased
from drift_sphere.model import MOST_CODES, SphereGenerator
from drift_sphere.table import write_csv

DOMAIN = "sphere"
SAMPLES = 5_000
"""Points in a run's samples.csv and figures."""
GRID = 600
"""Points at which the drift field is drawn."""
VALIDATION = 1_024
"""Points that are drawn to score a checkpoint."""
WIDTH, PLAIN_WIDTH = 128, 256
"""Width of the network with codes, and without."""
_SAMPLING, _VALIDATING = 2, 3
_MEMORY, _MOST_MEMORY = 4, 65_536
"""Samples that are remembered for --neighbors: times the training points, and the most."""


@dataclass(kw_only=True)
class Config(RunConfig):
    """Train a one-step generator of events on the Earth.

    Defaults were chosen on the validation splits of the Earth data; the paper's network and optimiser
    settings are not published.
    """

    steps: int = 0
    """Optimiser steps; 0 stands for 1,000 on toy (a minute on two cores) and 9,000 on other data."""
    lr: float = 1.5e-3
    """Learning rate after the warm-up."""
    decay_fraction: float = 0.7
    """Fraction of the steps, at the end, over which the learning rate falls to zero; 0: never."""
    decay_power: float = 5.0
    """How it falls: as this power of the steps left; 1 is linearly, 5 leaves many steps for small changes."""
    lengthscale: str = "short"
    """Lengthscale in radians: a number, several (0.5,0.05), annealed (2:0.02), auto, or short: 2:0.002, with
    the spectral kernel 2:0.02, or 2:0.05 for --nu above 2.5, beyond which its series gets too long."""
    anneal: float = 0.6
    """Fraction of the steps, at the beginning, over which an annealed lengthscale falls."""
    neighbors: int = 128
    """Nearest samples of the last steps, and a quarter as many of all data points, that a sample sees once
    they carry the kernel, if a batch does not hold all data points; 0: those of the batch to the end."""
    dataset: Literal["toy", "volcano", "earthquake", "fire", "flood"] = "toy"
    """Data set; toy is generated, the others are read from --data-dir."""
    data: Path | None = None
    """CSV file of latitude and longitude in degrees to train on instead of --dataset."""
    split_seed: int = 42
    """Seed of the split into training, validation and test points."""
    codes: int = 2_048
    """Learned codes in the latent; 0, as published: Gaussian noise alone, through a plain MLP."""
    geometry: Literal["spherical", "euclidean"] = "spherical"
    """Drift on the sphere, or in R^3 with straight distances and a projection at the end."""

    eval_draws: int = 0
    """Generated draws over which metrics are averaged; 0 stands for 20 on toy and 100 on other data."""

    def __post_init__(self) -> None:
        toy = self.dataset == "toy" and self.data is None
        self.steps = self.steps or (1_000 if toy else 9_000)
        self.eval_draws = self.eval_draws or (20 if toy else 100)
        if self.lengthscale == "short":
            self.lengthscale = f"2:{max(0.002, shortest_lengthscale(self.kernel, self.nu))}"
        super().__post_init__()
        check_range("--split-seed", self.split_seed, 0)
        check_range("--neighbors", self.neighbors, 0)
        check_range("--codes", self.codes, 0, MOST_CODES)
        if not 0 < self.anneal <= 1:
            raise ValueError(f"--anneal must lie in (0, 1], got {self.anneal}")


def load_split(config: Config) -> Split:
    """Data of a run; raises as `load` does, and ValueError for too few points to be scored."""
    split = load(config.dataset, config.data, config.data_dir, config.split_seed)
    if len(split.test) < 2:
        rows = sum(map(len, split))
        raise ValueError(
            f"{config.data}: {rows} rows; at least 20 are needed, of which a tenth is for testing"
        )
    return split


def make_generator(config: Config) -> SphereGenerator:
    """Untrained generator of a run, the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        width = WIDTH if config.codes else PLAIN_WIDTH
        return SphereGenerator(config.codes, width=width, geometry=config.geometry)


def make_field(config: Config, train: Float[Tensor, "n 3"]) -> KernelField:
    """Drift field of a run; raises ValueError for a kernel or lengthscale that is refused."""
    manifold = Sphere() if config.geometry == "spherical" else Euclidean()
    if config.kernel == "spectral" and config.geometry == "euclidean":
        raise ValueError("--kernel spectral lives on the sphere; --geometry euclidean has no such kernel")
    auto = auto_lengthscale(manifold, train) if "auto" in config.lengthscale else None
    kernel = partial(make_kernel, config.kernel, nu=config.nu)
    scales = replace(checked_lengthscales(config.lengthscale, kernel, auto), anneal=config.anneal)
    longest_step(manifold, config.max_step)
    return KernelField(manifold, kernel, scales, config.direction)


def with_neighbors(
    config: Config, field: KernelField, train: Float[Tensor, "n 3"]
) -> KernelField | NearestField:
    """The field of a run, which ends as that of all training points, unless a batch holds them all anyway."""
    if config.neighbors == 0 or len(train) <= (config.num_positives or config.batch_size):
        return field
    memory = min(_MEMORY * len(train), _MOST_MEMORY)
    return NearestField(field, train, memory=memory, neighbors=config.neighbors)


def field_on_grid(
    field: KernelField, generator: SphereGenerator, data: Float[Tensor, "n 3"]
) -> Float[Tensor, "g 3"]:
    """Drift between data and samples of a generator on an even grid of the sphere, tangent to it.

    Annealed lengthscales are taken half-way: fields of generators compare at one lengthscale only.
    """
    x = spiral_grid(GRID)
    samples = draw(generator, SAMPLES, seed=0)
    halfway = field.lengthscales.anneal / 2
    return Sphere().proju(x, field(Batch(x, data, samples, None, progress=halfway)).field)


def report(
    run: Path,
    generator: SphereGenerator,
    train: Float[Tensor, "n 3"],
    start: Float[Tensor, "g 3"],
    end: Float[Tensor, "g 3"],
) -> None:
    """Write the model, samples.csv and the figures of a run; start and end are `field_on_grid`."""
    save_model(run / "model", generator)
    samples = draw(generator, SAMPLES, seed=0)
    save(run / "samples.csv", samples)
    figures = run / "figures"
    samples_figure(train, samples, figures / "samples.png")
    density_figure(train, samples, figures / "density.png")
    field_figure(spiral_grid(GRID), start, end, train, figures / "field.png")
    training_figure(read_records(run), figures / "training.png")


def score(config: Config, generator: SphereGenerator, *, draws: int, on: str = "test") -> Metrics:
    """Metrics of a generator on the "test" split, for reports, or on "val", for choosing settings."""
    split = load_split(config)
    held_out = split.test if on == "test" else split.val
    progress = partial(tqdm, desc="evaluate")
    return evaluate(generator.sample, split.train, held_out, draws, config.seed, progress)


def validation(config: Config, split: Split) -> Callable[[SphereGenerator], float]:
    """Score by which `train` keeps the best checkpoint: unbiased MMD^2 to the validation points."""
    y_sum = kernel_sum(split.val)

    def unbiased(generator: SphereGenerator) -> float:
        samples = generator.sample(VALIDATION, generator_for(config.seed, _VALIDATING)).cpu()
        return mmd2_unbiased(samples, split.val, y_sum)

    return unbiased


def draw(generator: SphereGenerator, n: int, seed: int) -> Float[Tensor, "n 3"]:
    """Draw n points with a seed."""
    return generator.sample(n, generator_for(seed, _SAMPLING)).cpu()


def save(path: Path, samples: Float[Tensor, "n 3"]) -> None:
    """Write samples as latitude and longitude in degrees (CSV)."""
    write_csv(path, sphere_to_latlon(samples))


def load_generator(run: Path) -> SphereGenerator:
    """Trained generator of a run.

    Raises:
        ValueError: the run has not finished, so that there is no model, or its files are damaged.
    """
    return load_model(SphereGenerator, run / "model").eval()
