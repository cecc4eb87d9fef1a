"""Training runs of a study, each in its own folder, distributed over processes and resumable."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import torch
from drift_core.runs.domain import Split
from drift_core.runs.folder import CONFIG, Place, open_run
from drift_core.runs.folder import METRICS as METRICS_FILE
from drift_core.runs.main import train_generators
from drift_core.runs.metrics import Metrics, read_metrics, write_metrics
from drift_core.runs.model import save_model
from drift_core.training.parallel import make_accelerator
from tqdm.auto import tqdm

from drift_synthetic.domain import DOMAIN, SyntheticConfig
from drift_synthetic.evaluate import METRICS, evaluate

# No progress bars of their own, and one thread each, in every library.
_CHILD = {"TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Trial:
    """A training run of a study, and the stream on which it is scored: "val" to tune, "test" to report."""

    name: str
    """Folder of the run under the study's."""
    config: SyntheticConfig
    on: Split = "test"
    metrics: tuple[str, ...] = METRICS
    """Metrics to score it by."""


def run_trials(trials: Sequence[Trial], out: Path, workers: int, description: str) -> dict[str, Metrics]:
    """Train and score the unfinished trials under `out`, and return the metrics of all trials by name.

    Finished trials are read, stopped ones continue from their checkpoints. Trials run in `workers` processes
    of one thread each, which is faster than many threads for networks of this size. On a GPU a process trains
    all seeds of a variant together.

    Raises:
        ValueError: a trial's folder holds a run with other settings.
        KeyboardInterrupt: the study was stopped; runs in progress are saved.
    """
    metrics: dict[str, Metrics] = {}
    with tqdm(total=len(trials), desc=description) as bar:
        for trial, found in _results(trials, out, workers):
            metrics[trial.name] = found
            bar.set_postfix_str(trial.name)
            bar.update()
    return metrics


def run_group(trials: Sequence[Trial], out: Path) -> list[Metrics]:
    """Train trials of one architecture together and score them, or read the metrics of finished ones."""
    accelerator = make_accelerator()
    places = {trial: Place(out / trial.name, resume=(out / trial.name / CONFIG).exists()) for trial in trials}
    due = [trial for trial in trials if not (out / trial.name / METRICS_FILE).exists()]
    for trial in trials:
        if trial not in due:
            open_run(trial.config, DOMAIN.name, places[trial], accelerator)  # refuses one with other settings
    pending = [(trial.config, places[trial]) for trial in due]
    runs = train_generators(DOMAIN, pending, accelerator, validate=False) if due else []
    for trial, run in zip(due, runs, strict=True):
        save_model(run.folder / "model", run.generator)
        sampler, settings = run.generator.sample, run.config.run
        found = evaluate(sampler, run.data, settings.eval_draws, settings.seed, trial.on, trial.metrics)
        write_metrics(run.folder, found)
    return [read_metrics(out / trial.name) for trial in trials]


def _results(trials: Sequence[Trial], out: Path, workers: int) -> Iterator[tuple[Trial, Metrics]]:
    """Trials with their metrics as they finish; one worker runs in this process."""
    groups = by_variant(trials) if torch.cuda.is_available() else [[trial] for trial in trials]
    if workers == 1:
        for group in groups:
            yield from zip(group, run_group(group, out), strict=True)
        return
    with _environment(**_CHILD), ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        futures = {pool.submit(run_group, group, out): group for group in groups}
        try:
            for future in as_completed(futures):
                yield from zip(futures[future], future.result(), strict=True)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def by_variant(trials: Sequence[Trial]) -> list[list[Trial]]:
    """Trials grouped by all settings but the seed."""
    groups: dict[SyntheticConfig, list[Trial]] = {}
    for trial in trials:
        groups.setdefault(trial.config.replace(seed=0), []).append(trial)
    return list(groups.values())


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Set environment variables for processes started within the context."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
