"""Training runs of a study, each in its own folder, distributed over processes and resumable."""

import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import torch
from tqdm.auto import tqdm

from drift_core.files import write_json
from drift_core.runs.config import DomainConfig
from drift_core.runs.domain import Domain, Run
from drift_core.runs.environment import processor
from drift_core.runs.folder import CONFIG, METRICS, Place, changed_settings, open_run, read_config
from drift_core.runs.main import train_generators
from drift_core.runs.metrics import Metric, Metrics, read_metrics, write_metrics
from drift_core.runs.model import save_model
from drift_core.runs.study.processes import mapped
from drift_core.training.checkpoint import CHECKPOINTS
from drift_core.training.parallel import make_accelerator

AnyDomain = Domain[Any, Any, Any]

Score = Callable[[AnyDomain, Run[Any, Any, Any]], Metrics]
"""Scores a trained generator. Processes receive it pickled: a function of a module, or a `partial` of one."""

COST = "cost.json"

DIVERGED = "diverged"
"""The only metric of a trial whose training diverged."""

# Settings that a finished trial may differ in: where data are, and how it was logged.
_FREE = ("data_dir", "tracker", "log_every", "save_every", "keep")


def on_test(domain: AnyDomain, run: Run[Any, Any, Any]) -> Metrics:
    """All metrics of the domain on test data."""
    return domain.metrics(run, run.config.run.eval_draws, "test")


def on_validation(domain: AnyDomain, run: Run[Any, Any, Any]) -> Metrics:
    """The domain's validation score, lower is better.

    Raises ValueError for data without a validation part.
    """
    score = domain.validation(run.config, run.data)
    if score is None:
        raise ValueError("the data have no validation part on which to choose settings")
    with torch.no_grad():
        return {"validation": Metric(score(run.generator), 0.0, None, None)}


@dataclass(frozen=True)
class Trial:
    """A run of a study, and how it is scored."""

    name: str
    """Folder of the run under the study's."""
    domain: AnyDomain
    config: DomainConfig
    score: Score = on_test
    generator: Callable[[Any, Any], torch.nn.Module] | None = None
    """Maker of a generator, from settings and data, in place of a trained one."""


@dataclass(frozen=True)
class Cost:
    """What a trial took; None: not known."""

    processor: str | None = None
    """Processor, or GPU where there is one."""
    minutes: float | None = None
    """CPU minutes since the trial was last started, its score included; on a GPU minutes by the clock."""

    def __str__(self) -> str:
        minutes = "unknown" if self.minutes is None else f"{self.minutes:.2g}"
        return f"CPU minutes (GPU: minutes) of a run: {minutes}; processor: {self.processor or 'unknown'}."


class Result(NamedTuple):
    """Metrics of a trial, and what it took."""

    metrics: Metrics
    cost: Cost


def mean_cost(results: Iterable[Result]) -> Cost:
    """Mean minutes of the trials of which they are known, and all their processors."""
    costs = [result.cost for result in results]
    known = [cost.minutes for cost in costs if cost.minutes is not None]
    processors = dict.fromkeys(cost.processor for cost in costs if cost.processor)
    return Cost(", ".join(processors) or None, fmean(known) if known else None)


def run_trials(trials: Sequence[Trial], out: Path, workers: int, description: str) -> dict[str, Result]:
    """Train and score the unfinished trials under `out`, and return the results of all trials by name.

    Finished trials are read, stopped ones continue from their checkpoints. Trials run in `workers` processes
    of one thread each, which is faster than many threads for small networks. On a GPU a process trains
    all seeds of a variant together; with several GPUs, each process uses one.

    Raises:
        ValueError: a trial's folder holds a run with other settings.
        OSError: a process was killed.
        KeyboardInterrupt: the study was stopped; runs in progress are saved.
    """
    results: dict[str, Result] = {}
    with tqdm(total=len(trials), desc=description) as bar:
        for trial, found in _results(trials, out, workers):
            results[trial.name] = found
            bar.set_postfix_str(trial.name)
            bar.update()
    return results


def run_group(trials: Sequence[Trial], out: Path) -> list[Result]:
    """Train trials of one architecture together and score them, or read the results of finished ones.

    A trial whose training diverges has no metrics but `DIVERGED`, which is undefined.
    """
    for trial in trials:
        _check_unchanged(trial, out / trial.name)
    due = [trial for trial in trials if not (out / trial.name / METRICS).exists()]
    try:
        _train_and_score(due, out)
    except FloatingPointError as error:
        if len(due) > 1:  # the others may not diverge
            return [result for trial in trials for result in run_group([trial], out)]
        tqdm.write(str(error))
        write_metrics(out / due[0].name, {DIVERGED: Metric(None, None, None, None)})
    return [_read(out / trial.name) for trial in trials]


def _train_and_score(trials: Sequence[Trial], out: Path) -> None:
    """Train, score and save trials; raises FloatingPointError as `train` does."""
    clock = time.monotonic if torch.cuda.is_available() else time.process_time
    start = clock()
    runs = _generators(trials, out) if trials else []
    share = (clock() - start) / max(1, len(trials))
    for trial, run in zip(trials, runs, strict=True):
        start = clock()
        found = trial.score(trial.domain, run)
        minutes = (share + clock() - start) / 60
        write_json(run.folder / COST, asdict(Cost(_device(), minutes)))
        write_metrics(run.folder, found)  # last: it says that the trial is finished
        shutil.rmtree(run.folder / CHECKPOINTS, ignore_errors=True)  # as large as ten models


def _device() -> str:
    """Name of the GPU, or of the processor if there is none."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else processor()


def _generators(trials: Sequence[Trial], out: Path) -> list[Run[Any, Any, Any]]:
    """Runs of the trials, trained if they have to be; their models are saved."""
    accelerator, domain = make_accelerator(), trials[0].domain
    places = [Place(out / trial.name, resume=(out / trial.name / CONFIG).exists()) for trial in trials]
    if trials[0].generator is None:
        pending = [(trial.config, place) for trial, place in zip(trials, places, strict=True)]
        runs = train_generators(domain, pending, accelerator, validate=False)
        for run in runs:
            save_model(run.folder / "model", run.generator)
        return runs
    runs = []
    for trial, place in zip(trials, places, strict=True):
        data = domain.load(trial.config)
        folder = open_run(trial.config, domain.name, place, accelerator)
        assert trial.generator is not None
        runs.append(Run(folder, trial.config, data, trial.generator(trial.config, data)))
    return runs


def _check_unchanged(trial: Trial, folder: Path) -> None:
    if not (folder / CONFIG).exists():
        return
    if changes := changed_settings(trial.config, read_config(folder), _FREE):
        raise ValueError(
            f"{folder} has other settings than this study: {', '.join(changes)}; "
            "remove it to train it again, or name another folder by `out`"
        )


def _read(folder: Path) -> Result:
    path = folder / COST
    cost = Cost(**json.loads(path.read_text())) if path.exists() else Cost()
    return Result(read_metrics(folder), cost)


def _results(trials: Sequence[Trial], out: Path, workers: int) -> Iterator[tuple[Trial, Result]]:
    """Trials with their results as they finish; one worker runs in this process."""
    groups = by_variant(trials) if torch.cuda.is_available() else [[trial] for trial in trials]
    for group, found in mapped(partial(run_group, out=out), groups, workers):
        yield from zip(group, found, strict=True)


def by_variant(trials: Sequence[Trial]) -> list[list[Trial]]:
    """Trials of one domain grouped by all settings but the seed; those that are not trained alone.

    Domains are compared by identity, since they may differ in what no setting says, such as the field.
    """
    groups: dict[Any, list[Trial]] = {}
    for trial in trials:
        key = (id(trial.domain), trial.config.replace(seed=0)) if trial.generator is None else trial.name
        groups.setdefault(key, []).append(trial)
    return list(groups.values())
