"""Commands that use a finished run: `sample`, `evaluate` and `report`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import tyro

from drift_core.cli.arguments import parse, with_examples
from drift_core.cli.errors import run
from drift_core.runs.card import write_card
from drift_core.runs.domain import Run, Split
from drift_core.runs.folder import read_config, restore_config
from drift_core.runs.installed import AnyDomain, Domains
from drift_core.runs.main import load_run
from drift_core.runs.metrics import metrics_table, read_metrics, write_metrics
from drift_core.runs.report_page import REPORT, write_report
from drift_core.training.config import check_range

_SAMPLING = {
    "RUN --out FILE": "1,000 samples",
    "RUN --n 100000 --seed 1 --out FILE": "others, and more of them",
    "RUN --best --out FILE": "by the weights that did best on validation data",
    "RUN --best-of 8 --out FILE": "of sequences: of eight candidates the one that the network is surest of",
}
_EVALUATING = {
    "RUN --draws 100": "averages of 100 draws",
    "RUN --on val": "on validation data, to choose settings by",
    "RUN --on val --best": "of the weights that did best on them",
    "RUN --on val --best-of 8": "of sequences, with eight candidates for each sample",
}


def sample(domains: Domains) -> None:
    """Sample from a finished run named on the command line (`SampleCommand`)."""

    def main() -> None:
        command = parse(SampleCommand, with_examples(SampleCommand.__doc__, _SAMPLING))
        if command.n < 1:
            raise ValueError(f"`n` must be at least 1, got {command.n}")
        if command.out.exists():
            raise ValueError(f"`out` {command.out} exists; name a new file")
        domain, finished = load_generator(command, domains)
        domain.write(command.out, domain.sample(finished, command.n, command.seed))
        print(f"{command.n:,} samples: {command.out}")

    run(main)


def evaluate(domains: Domains) -> None:
    """Evaluate a finished run named on the command line (`EvaluateCommand`)."""

    def main() -> None:
        command = parse(EvaluateCommand, with_examples(EvaluateCommand.__doc__, _EVALUATING))
        domain, finished = load_generator(command, domains)
        draws = finished.config.run.eval_draws if command.draws is None else command.draws
        metrics = domain.metrics(finished, draws, command.on)
        if command.on == "test" and not command.best and command.best_of is None:
            write_metrics(command.run, metrics)
            write_report(domain, command.run, finished.config, metrics)
            write_card(domain, command.run, finished.config, metrics)
        print(metrics_table(metrics))

    run(main)


def report(domains: Domains) -> None:
    """Rewrite the page of a finished run named on the command line (`ReportCommand`)."""

    def main() -> None:
        folder = parse(ReportCommand).run
        domain = domain_of(folder, domains)
        config = restore_config(domain.config_type, read_config(folder))
        metrics = read_metrics(folder)
        write_report(domain, folder, config, metrics)
        write_card(domain, folder, config, metrics)
        print(folder / REPORT)

    run(main)


@dataclass(kw_only=True)
class SampleCommand:
    """Draw samples from the generator of a finished run."""

    run: tyro.conf.Positional[Path]
    """Folder of the run."""
    out: Path
    """File to write; its format is the domain's."""
    n: int = 1_000
    """Number of samples."""
    seed: int = 0
    """Seed; the same seed draws the same samples."""
    best: bool = False
    """Use the weights with the best validation score instead of the final ones."""
    best_of: int | None = None
    """Candidates, of which each sequence is the one that the network is surest of; none: as in training."""


@dataclass(kw_only=True)
class EvaluateCommand:
    """Score the generator of a finished run, and rewrite its metrics.json and report.html."""

    run: tyro.conf.Positional[Path]
    """Folder of the run."""
    draws: int | None = None
    """Draws over which metrics are averaged; none: as many as after training."""
    on: Split = "test"
    """Held-out data; the metrics of val, for choosing settings, are printed but not saved."""
    best: bool = False
    """Score the weights with the best validation score; their metrics are printed but not saved."""
    best_of: int | None = None
    """Candidates, of which each sequence is the one that the network is surest of; their metrics are printed
    but not saved; none: as in training."""


@dataclass(kw_only=True)
class ReportCommand:
    """Rewrite the report.html of a finished run from its files, and print its path."""

    run: tyro.conf.Positional[Path]
    """Folder of the run."""


@runtime_checkable
class _Chooses(Protocol):
    """A generator that draws `best_of` candidates for each sample."""

    best_of: int


def load_generator(
    command: SampleCommand | EvaluateCommand, domains: Domains
) -> tuple[AnyDomain, Run[Any, Any, Any]]:
    """Domain and run of a command, whose generator draws as many candidates as the command says.

    Raises:
        ValueError: as `domain_of` and `load_run`, or for fewer candidates than 1, or a generator that draws
            none.
    """
    if command.best_of is not None:
        check_range("best_of", command.best_of, 1)
    domain = domain_of(command.run, domains)
    finished = load_run(domain, command.run, best=command.best)
    if command.best_of is not None:
        if not isinstance(finished.generator, _Chooses):
            raise ValueError(
                "`best_of` is for sequences; samples of this run are not chosen among candidates"
            )
        finished.generator.best_of = command.best_of
    return domain, finished


def domain_of(folder: Path, domains: Domains) -> AnyDomain:
    """Domain of a run.

    Raises:
        ValueError: the folder holds no run, or a run of an unknown domain.
    """
    name = read_config(folder)["domain"]
    if name not in domains:
        raise ValueError(f"{folder} is a run of {name!r}; the installed domains are {', '.join(domains)}")
    return domains[name]()
