"""Training runs of a study, each in its own folder, distributed over processes and resumable."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from drift_core.runs.domain import Split
from drift_core.runs.folder import CONFIG, Place, open_run
from drift_core.runs.folder import METRICS as METRICS_FILE
from drift_core.runs.main import train_generator
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
    of one thread each, which is faster than many threads for networks of this size.

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


def run_trial(trial: Trial, out: Path) -> Metrics:
    """Train and score one trial, or read its metrics if it is finished."""
    folder, settings = out / trial.name, trial.config.run
    place, accelerator = Place(folder, resume=(folder / CONFIG).exists()), make_accelerator()
    if (folder / METRICS_FILE).exists():
        open_run(trial.config, DOMAIN.name, place, accelerator)  # refuses a run with other settings
        return read_metrics(folder)
    run = train_generator(DOMAIN, trial.config, place, accelerator, validate=False)
    save_model(folder / "model", run.generator)
    sampler, draws = run.generator.sample, settings.eval_draws
    metrics = evaluate(sampler, run.data, draws, settings.seed, trial.on, trial.metrics)
    write_metrics(folder, metrics)
    return metrics


def _results(trials: Sequence[Trial], out: Path, workers: int) -> Iterator[tuple[Trial, Metrics]]:
    """Trials with their metrics as they finish; one worker runs in this process."""
    if workers == 1:
        yield from ((trial, run_trial(trial, out)) for trial in trials)
        return
    with _environment(**_CHILD), ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        futures = {pool.submit(run_trial, trial, out): trial for trial in trials}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


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
