"""Training, reporting and loading of runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from accelerate import Accelerator

from drift_core.drift import longest_step
from drift_core.runs.card import write_card
from drift_core.runs.config import DomainConfig
from drift_core.runs.domain import Domain, Run, untrained
from drift_core.runs.environment import write_environment
from drift_core.runs.figures import training_figure
from drift_core.runs.folder import Place, open_run, read_config, restore_config
from drift_core.runs.metrics import Metrics, write_metrics
from drift_core.runs.model import load_model, save_model
from drift_core.runs.readme import write_readme
from drift_core.runs.report_page import write_report
from drift_core.training.checkpoint import load_best
from drift_core.training.loop import Training, train_together
from drift_core.training.parallel import make_accelerator, warn
from drift_core.training.records import read_records

C = TypeVar("C", bound=DomainConfig)
D = TypeVar("D")
G = TypeVar("G", bound=torch.nn.Module)


def train_domain(domain: Domain[C, D, G], config: C, place: Place) -> tuple[Path, Metrics | None]:
    """Train a generator on every process; the first process saves, plots and evaluates it.

    Returns the run folder and, on the first process, the metrics that its metrics.json holds.

    Raises:
        ValueError, OSError: invalid settings or data, or a folder that is not free.
        FloatingPointError, KeyboardInterrupt: as `train` does.
    """
    accelerator = make_accelerator(config.run.tracker)
    run, metrics = train_generator(domain, config, place, accelerator), None
    if accelerator.is_main_process:
        write_environment(run.folder, accelerator)
        report(domain, run)
        metrics = domain.metrics(run, config.run.eval_draws, "test")
        write_metrics(run.folder, metrics)
        write_report(domain, run.folder, config, metrics)
        write_card(domain, run.folder, config, metrics)
        write_readme(run.folder, domain.samples_file)
    accelerator.end_training()
    return run.folder, metrics


def train_generator(
    domain: Domain[C, D, G], config: C, place: Place, accelerator: Accelerator, *, validate: bool = True
) -> Run[C, D, G]:
    """Train a generator on every process, without a report.

    `validate` also saves the weights with the best validation score. Raises as `train_domain`.
    """
    (run,) = train_generators(domain, [(config, place)], accelerator, validate=validate)
    return run


def train_generators(
    domain: Domain[C, D, G],
    runs: Sequence[tuple[C, Place]],
    accelerator: Accelerator,
    *,
    validate: bool = True,
) -> list[Run[C, D, G]]:
    """`train_generator` for several runs of one architecture at once; raises as `train_together`."""
    for config, _ in runs:
        config.check()
    data = [domain.load(config) for config, _ in runs]
    trainings = [
        _prepared(domain, config, points, place, accelerator, validate)
        for (config, place), points in zip(runs, data, strict=True)
    ]
    trained = train_together(trainings, accelerator)
    found = zip(runs, data, trainings, trained, strict=True)
    return [Run(part.out, config, points, generator) for (config, _), points, part, generator in found]


def _prepared(
    domain: Domain[C, D, G], config: C, data: D, place: Place, accelerator: Accelerator, validate: bool
) -> Training[G]:
    """A run in its folder, ready to train."""
    generator, field = untrained(domain, config, data), domain.field(config, data)
    longest_step(field.manifold, config.optimizer.max_step)
    folder = open_run(config, domain.name, place, accelerator)
    for remark in domain.remarks(config, data):
        warn(accelerator, remark)
    return Training(
        generator,
        field,
        domain.data_sampler(config, data),
        config,
        folder,
        sample_condition=domain.condition_sampler(config, data),
        resume=place.resume,
        validate=domain.validation(config, data) if validate else None,
        on_step=domain.on_step(folder, config, data),
    )


def report(domain: Domain[C, D, G], run: Run[C, D, G]) -> None:
    """Write the model, the samples and the figures of a run."""
    save_model(run.folder / "model", cast(Any, run.generator))
    samples = domain.sample(run, domain.num_samples, 0)
    domain.write(run.folder / domain.samples_file, samples)
    domain.figures(run, samples)
    training_figure(read_records(run.folder), run.folder / "figures" / "training.png")


def load_run(domain: Domain[C, D, G], folder: Path, *, best: bool = False) -> Run[C, D, G]:
    """Load a finished run, its data included, on a GPU where there is one.

    Args:
        domain: the domain of the run.
        folder: the run folder.
        best: load the weights with the best validation score, instead of the final ones.

    Raises:
        ValueError: the folder holds no finished run of the domain, or its files are damaged.
        OSError: its data are missing.
    """
    config = restore_config(domain.config_type, read_config(folder))
    data = domain.load(config)
    generator = cast(G, load_model(cast(Any, domain.generator_type), folder / "model"))
    if best:
        load_best(folder, generator)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Run(folder, config, data, generator.eval().to(device))
