"""A run on a synthetic target: its settings, its parts, and the report that it ends with."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from drift_core import Batch, Euclidean, KernelField, longest_step
from drift_core.kernel.by_name import make_kernel
from drift_core.lengthscale import auto_lengthscale, checked_lengthscales, shortest_lengthscale
from drift_core.runs.figures import training_figure
from drift_core.runs.metrics import Metrics
from drift_core.runs.model import load_model, save_model
from drift_core.seeds import generator_for
from drift_core.training.config import RunConfig
from drift_core.training.records import read_records
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from drift_synthetic.chart import Space
from drift_synthetic.data import Problem, make_problem
from drift_synthetic.evaluate import METRICS, evaluate
from drift_synthetic.figures import DATA, Row, field_figure, grid_figure, lattice
from drift_synthetic.metrics import sliced_wasserstein
from drift_synthetic.model import SyntheticGenerator
from drift_synthetic.snapshots import read_snapshots
from drift_synthetic.table import write_csv

DOMAIN = "synthetic"
SAMPLES = 5_000
"""Points in a run's samples.csv and figures."""
VALIDATION = 2_048
"""Points that are drawn to score a checkpoint."""
_SAMPLING, _DRAWING, _VALIDATING = 2, 3, 4


class Samples(NamedTuple):
    """Points of a space, which tells the sphere's [n, 3] from the hyperboloid's."""

    space: Space
    points: Tensor


@dataclass(kw_only=True)
class Config(RunConfig):
    """Train a one-step generator of a checkerboard or a swiss roll on the plane, sphere or hyperboloid.

    Data are unlimited: every step draws fresh points. Defaults were chosen on validation streams of the
    four targets on the sphere and the hyperboloid; the paper's network and lengthscales are not published.
    """

    steps: int = 1_200
    """Optimiser steps."""
    lr: float = 1.5e-3
    """Learning rate after the warm-up."""
    decay_fraction: float = 0.5
    """Fraction of the steps, at the end, over which the learning rate falls linearly to zero; 0: never."""
    lengthscale: str = "short"
    """Lengthscale in units of distance: a number, several (0.5,0.05), annealed (1:0.03), auto, or short:
    1:0.03, with the spectral kernel 1:0.05 for --nu above 2.5, beyond which its series gets too long."""
    target: Literal["checkerboard", "swiss-roll"] = "checkerboard"
    """Density in the chart."""
    space: Literal["plane", "sphere", "hyperboloid"] = "sphere"
    """Where the exponential map at the origin carries it."""
    geometry: Literal["intrinsic", "euclidean"] = "intrinsic"
    """Drift on the space, or in its ambient space with straight distances and a projection at the end."""
    codes: int = 2_048
    """Learned codes in the latent; 0: Gaussian noise alone."""

    def __post_init__(self) -> None:
        if self.lengthscale == "short":
            self.lengthscale = f"1:{max(0.03, shortest_lengthscale(self.kernel, self.nu))}"
        super().__post_init__()


def problem_of(config: Config) -> Problem:
    """Target and space of a run."""
    return make_problem(config.target, config.space)


def make_generator(config: Config) -> SyntheticGenerator:
    """Untrained generator of a run, the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return SyntheticGenerator(config.space, config.geometry, codes=config.codes)


def make_field(config: Config) -> KernelField:
    """Drift field of a run; raises ValueError for a kernel or lengthscale that is refused."""
    problem = problem_of(config)
    manifold = problem.space.manifold if config.geometry == "intrinsic" else Euclidean()
    if config.kernel == "spectral" and (config.space, config.geometry) != ("sphere", "intrinsic"):
        raise ValueError(
            "--kernel spectral needs --space sphere and --geometry intrinsic, "
            f"got {config.space} and {config.geometry}"
        )
    auto = None
    if "auto" in config.lengthscale:
        points = problem.sample(2_048, generator_for(config.seed, _DRAWING))
        auto = auto_lengthscale(manifold, points)
    kernel = partial(make_kernel, config.kernel, nu=config.nu)
    scales = checked_lengthscales(config.lengthscale, kernel, auto)
    longest_step(manifold, config.max_step)
    return KernelField(manifold, kernel, scales, config.direction)


def fields_on_lattice(config: Config) -> tuple[Float[Tensor, "g d"], dict[str, Float[Tensor, "g d"]]]:
    """Lattice points, and there both directions of the field between data and the untrained generator.

    Annealed lengthscales are taken half-way.
    """
    problem = problem_of(config)
    x, data = lattice(problem), problem.sample(SAMPLES, generator_for(config.seed, _DRAWING))
    samples = make_generator(config).sample(SAMPLES, generator_for(0, _SAMPLING))
    titles = {"displacement": "Displacement", "gradient": "Kernel gradient"}
    fields = {}
    for direction in ("displacement", "gradient"):
        field = make_field(replace(config, direction=direction))
        halfway = field.lengthscales.anneal / 2
        fields[titles[direction]] = field(Batch(x, data, samples, None, progress=halfway)).field
    return x, fields


def evolution(run: Path, config: Config) -> Row:
    """Row of a figure: a run's samples over its training, the last of them by the model that it saved."""
    problem = problem_of(config)
    panels = {f"step {step:,}": points for step, points in read_snapshots(run, problem.space).items()}
    end = draw(load_generator(run), config.batch_size, seed=0)  # as many as a snapshot holds
    panels[f"step {config.steps:,}"] = end.points
    return Row(f"{config.geometry} {config.direction}", problem, panels)


def report(run: Path, config: Config, generator: SyntheticGenerator) -> None:
    """Write the model, samples.csv and the figures of a run."""
    save_model(run / "model", generator)
    samples = draw(generator, SAMPLES, seed=0)
    save(run / "samples.csv", samples)
    problem, figures = problem_of(config), run / "figures"
    data = problem.sample(SAMPLES, generator_for(config.seed, _DRAWING))
    title = f"{config.target} on the {config.space}"
    grid_figure([Row(title, problem, {DATA: data, "Samples": samples.points})], figures / "samples.png")
    grid_figure([evolution(run, config)], figures / "evolution.png")
    field_figure(problem, *fields_on_lattice(config), data, figures / "field.png")
    training_figure(read_records(run), figures / "training.png")


def score(
    config: Config,
    generator: SyntheticGenerator,
    *,
    draws: int,
    on: Literal["test", "val"] = "test",
    names: Collection[str] = METRICS,
) -> Metrics:
    """Metrics of a generator against the "test" stream, for reports, or "val", for choosing settings."""
    progress = partial(tqdm, desc="evaluate")
    return evaluate(generator.sample, problem_of(config), draws, config.seed, on, progress, names)


def validation(config: Config) -> Callable[[SyntheticGenerator], float]:
    """Score by which `train` keeps the best checkpoint: sliced Wasserstein-2 to a fresh sample."""
    reference = problem_of(config).sample(VALIDATION, generator_for(config.seed, _VALIDATING, 0))

    def distance(generator: SyntheticGenerator) -> float:
        samples = generator.sample(VALIDATION, generator_for(config.seed, _VALIDATING, 1)).cpu()
        return sliced_wasserstein(samples, reference)

    return distance


def draw(generator: SyntheticGenerator, n: int, seed: int) -> Samples:
    """Draw n points with a seed."""
    return Samples(generator.space, generator.sample(n, generator_for(seed, _SAMPLING)).cpu())


def save(path: Path, samples: Samples) -> None:
    """Write samples in ambient coordinates, followed by those of the chart (CSV)."""
    write_csv(path, *samples)


def load_generator(run: Path) -> SyntheticGenerator:
    """Trained generator of a run.

    Raises:
        ValueError: the run has not finished, so that there is no model, or its files are damaged.
    """
    return load_model(SyntheticGenerator, run / "model").eval()
