"""Couplings and scales on three kinds of data: which of them help what."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from drift_core import (
    AdaptiveField,
    BalancedField,
    Domain,
    Field,
    HeldSampleSize,
    KernelField,
    Laplace,
    NormalizedField,
    Sinkhorn,
    SumField,
    geometric_mean,
    rows_only,
)
from drift_core.fields import Coupling
from drift_core.lengthscale import Lengthscales
from drift_core.original import OriginalField
from drift_core.runs import DomainConfig, Measured, Metrics, Run, Split, evaluate_draws
from drift_core.runs.study import Cell, Shown, StudyReport, Table, folder_name, run_table
from drift_core.seeds import generator_for
from drift_core.training import Sampler, Settings, resample
from torch import Tensor, nn

from benchmarks.beds import BEDS, Bed, draw

COUPLINGS: dict[str, Coupling] = {
    "rows": rows_only,
    "rows x columns": geometric_mean,
    "Sinkhorn": Sinkhorn(5),
}


def one_scale(bed: Bed, coupling: Coupling) -> Field:
    """The field of the paper at the lengthscale of the data."""
    return _at(bed, coupling, 1.0)


def annealed(bed: Bed, coupling: Coupling) -> Field:
    """The same from four lengthscales down to one, over the first half of training."""
    scales = Lengthscales((4 * bed.lengthscale,), (bed.lengthscale,))
    return KernelField(bed.manifold, Laplace, scales, coupling=coupling)


def three_scales(bed: Bed, coupling: Coupling) -> Field:
    """Half, one and two lengthscales, each divided by its root mean square."""
    parts = [NormalizedField(_at(bed, coupling, factor)) for factor in (0.5, 1.0, 2.0)]
    return SumField(parts, [1 / 3] * 3)


def held_size(bed: Bed, coupling: Coupling) -> Field:
    """The lengthscale that holds the effective sample size, divided by the root mean square."""
    return NormalizedField(AdaptiveField(_at(bed, coupling, 1.0), HeldSampleSize(bed.held)))


SCALES: dict[str, Callable[[Bed, Coupling], Field]] = {
    "one scale": one_scale,
    "annealed": annealed,
    "three of unit length": three_scales,
    "sample size held": held_size,
}

SEMI_DUAL, ORIGINAL = "semi-dual, one scale", "the original field"
ROWS = (*(f"{coupling}, {scale}" for coupling in COUPLINGS for scale in SCALES), SEMI_DUAL, ORIGINAL)


def field_of(row: str, bed: Bed) -> Field:
    """Field of a row of the table; a new one, for some learn."""
    if row == SEMI_DUAL:
        return BalancedField(_at(bed, rows_only, 1.0), bed.data)
    if row == ORIGINAL:
        return OriginalField(bed.manifold)
    coupling, scale = row.split(", ")
    return SCALES[scale](bed, COUPLINGS[coupling])


def _at(bed: Bed, coupling: Coupling, factor: float) -> KernelField:
    return KernelField(bed.manifold, Laplace, Lengthscales((factor * bed.lengthscale,)), coupling=coupling)


_SETTINGS = {"lr": 3e-3, "warmup_steps": 20, "decay_fraction": 0.5, "max_step": 1.0, "eval_draws": 5}


@dataclass(frozen=True, kw_only=True)
class BedData(Settings):
    """The data."""

    bed: str = "checkerboard"
    """One of `BEDS`."""


@dataclass(frozen=True, kw_only=True)
class ToolboxConfig(DomainConfig):
    """Train a small generator on a row's field."""

    data: BedData = field(default_factory=BedData)
    row: str = ROWS[0]
    """One of `ROWS`."""


class Toolbox(Domain[ToolboxConfig, Bed, nn.Module]):
    """A bed as a domain; a study trains it and asks for its metric."""

    name, config_type, generator_type = "toolbox", ToolboxConfig, nn.Module

    def load(self, config: ToolboxConfig) -> Bed:
        """The bed."""
        return BEDS[config.data.bed]()

    def generator(self, config: ToolboxConfig, data: Bed) -> nn.Module:
        """Its generator."""
        return data.make()

    def field(self, config: ToolboxConfig, data: Bed) -> Field:
        """The row's field."""
        return field_of(config.row, data)

    def data_sampler(self, config: ToolboxConfig, data: Bed) -> Sampler:
        """Sampler of points or, for the field that weighs them, of indices."""
        return resample(torch.arange(len(data.data)) if config.row == SEMI_DUAL else data.data)

    def sample(self, run: Run[ToolboxConfig, Bed, nn.Module], n: int, seed: int) -> Tensor:
        """Draw n points."""
        return draw(run.generator, n, seed)

    def write(self, path: Path, samples: Tensor) -> None:
        """Write points, one a line."""
        np.savetxt(path, samples.flatten(1), fmt="%.6g", delimiter=",")

    def metrics(self, run: Run[ToolboxConfig, Bed, nn.Module], draws: int, on: Split) -> Metrics:
        """Distance from the data, beside that of fresh data."""
        bed = run.data

        def measure(k: int) -> Measured:
            clouds = self.sample(run, bed.num_samples, k), bed.fresh(generator_for(k, 1))
            value, floor = ({"distance": bed.distance(cloud)} for cloud in clouds)
            return value, floor

        return evaluate_draws(measure, draws)


def step_size(row: str, bed: Bed) -> float:
    """Step along a row's field: a fifth of the lengthscale for a field of the usual length."""
    if row.endswith(("unit length", "held")):
        return 0.2 * bed.lengthscale
    if row == ORIGINAL:  # the sum of three of unit length
        return 0.2 * bed.lengthscale / 3
    return 0.2 * bed.lengthscale**2  # a score of the Laplace kernel is at most 1 / lengthscale


def toolbox_table() -> Table:
    """Every row on every bed."""
    domain, cells = Toolbox(), {}
    for name, make in BEDS.items():
        bed = make()
        config = ToolboxConfig.of(**_SETTINGS, bed=name, steps=bed.steps, batch_size=bed.batch_size)
        for row in ROWS:
            settings = config.replace(row=row, step_size=step_size(row, bed))
            cells[row, bed.metric] = Cell(f"{name}/{folder_name(row)}", domain, settings)
    steps = ", ".join(f"{make().steps} on {name}" for name, make in BEDS.items())
    about = f"Training steps: {steps}. All rows have the lengthscale that suits rows at one scale."
    return Table("toolbox", "Couplings and scales", about, cells, [Shown("distance", "Distance to the data")])


def benchmark(out: Path, workers: int) -> StudyReport:
    """Train every row on every bed, and collect the table under `out`; goes on where it was stopped."""
    return run_table(toolbox_table(), out, workers)
