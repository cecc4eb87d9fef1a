"""Studies: many training runs, each in a folder of its own, resumed where they stopped, and compared."""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean, stdev
from typing import Generic, Literal, TypeVar

from drift_core.runs.folder import CONFIG, open_run
from drift_core.runs.folder import METRICS as METRICS_FILE
from drift_core.runs.metrics import Metrics, read_metrics, write_metrics
from drift_core.runs.model import save_model
from drift_core.training.loop import train
from drift_core.training.parallel import make_accelerator
from tqdm.auto import tqdm

from drift_synthetic import experiment
from drift_synthetic.evaluate import METRICS
from drift_synthetic.experiment import Config
from drift_synthetic.snapshots import write_snapshots

K = TypeVar("K")
S = TypeVar("S")

Direction = Literal["displacement", "gradient"]

STEP_SIZES = (0.05, 1.0)
"""The kernel gradient grows like 1 / lengthscale, the displacement like lengthscale: one suits each."""

LONGEST_STEP = 1.0
"""Longest step of a sample: the large step size would throw some off the hyperboloid's chart."""

TUNING_SEED = 1000
"""Seed of the runs that choose step sizes; they are scored on the validation stream."""

LOWER_IS_BETTER = {"sliced_wasserstein": True, "c2st": True, "tile_accuracy": False}
"""Which way the metrics point."""

# No progress bars of their own, and one thread each, in every library.
_CHILD = {"TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Budget:
    """How much is spent on a study."""

    steps: int
    batch_size: int
    seeds: int
    eval_draws: int
    lengthscales: tuple[str, ...]
    """Lengthscales at each of which the directions are compared."""
    step_sizes: tuple[float, ...] = STEP_SIZES
    """Step sizes of which every variant takes the best at each lengthscale."""
    codes: int = Config.codes
    """Learned codes of every generator; 0: Gaussian noise alone."""


@dataclass(frozen=True)
class Trial:
    """A training run of a study, and the stream it is scored on: "val" to choose, "test" to report."""

    name: str
    """Folder of the run under the study's."""
    config: Config
    on: Literal["test", "val"] = "test"
    metrics: tuple[str, ...] = METRICS
    """Metrics to score it by."""


def run_trials(trials: Sequence[Trial], out: Path, workers: int, description: str) -> dict[str, Metrics]:
    """Train and score what is not finished under `out`, and return the metrics of all trials by name.

    Finished trials are read, stopped ones continue from their checkpoints. `workers` processes of one
    thread each share the trials out, which is faster than many threads for networks of this size.

    Raises:
        ValueError: a trial's folder holds a run with other settings.
        KeyboardInterrupt: the study was stopped; what is under way is saved.
    """
    metrics: dict[str, Metrics] = {}
    with tqdm(total=len(trials), desc=description) as bar:
        for trial, found in _results(trials, out, workers):
            metrics[trial.name] = found
            bar.set_postfix_str(trial.name)
            bar.update()
    return metrics


@dataclass(frozen=True)
class Choice(Generic[S]):
    """A setting, and the metric of the trial for which it was chosen."""

    setting: S
    value: float


def choose(
    candidates: Mapping[tuple[K, S], Trial], metric: str, out: Path, workers: int
) -> dict[K, Choice[S]]:
    """The setting with the best metric for each key, of trials by (key, setting)."""
    metrics = run_trials(list(candidates.values()), out, workers, "tuning")
    sign = 1 if LOWER_IS_BETTER[metric] else -1
    best: dict[K, Choice[S]] = {}
    for (key, setting), trial in candidates.items():
        value = _defined(metrics[trial.name][metric].value, metric)
        if key not in best or sign * value < sign * best[key].value:
            best[key] = Choice(setting, value)
    return best


def folder_of(*labels: object) -> str:
    """Name of a folder for labels, of which a lengthscale may hold colons."""
    return "-".join(str(label) for label in labels).replace(":", "-to-")


def run_trial(trial: Trial, out: Path) -> Metrics:
    """Train and score one trial, or read the metrics that it has."""
    folder = out / trial.name
    config = replace(trial.config, out=folder, resume=(folder / CONFIG).exists())
    accelerator = make_accelerator()
    open_run(config, experiment.DOMAIN, accelerator)
    if not (folder / METRICS_FILE).exists():
        problem = experiment.problem_of(config)
        hook = write_snapshots(problem.space, folder, config.steps)
        generator = train(
            experiment.make_generator(config), experiment.make_field(config), problem.sample, config, folder,
            accelerator=accelerator, resume=config.resume, on_step=hook,
        ).cpu()  # fmt: skip
        save_model(folder / "model", generator)
        metrics = experiment.score(
            config, generator, draws=config.eval_draws, on=trial.on, names=trial.metrics
        )
        write_metrics(folder, metrics)
    return read_metrics(folder)


def _results(trials: Sequence[Trial], out: Path, workers: int) -> Iterator[tuple[Trial, Metrics]]:
    """Trials with their metrics as they finish, by this process if there is one worker."""
    if workers == 1:
        yield from ((trial, run_trial(trial, out)) for trial in trials)
        return
    with _environment(**_CHILD), _pool(workers) as pool:
        futures = {pool.submit(run_trial, trial, out): trial for trial in trials}
        for future in as_completed(futures):
            yield futures[future], future.result()


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Pool of processes that, when something goes wrong, starts nothing more."""
    pool = ProcessPoolExecutor(workers, get_context("spawn"))
    try:
        yield pool
    except BaseException:
        pool.shutdown(cancel_futures=True)
        raise
    pool.shutdown()


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Environment of processes started within."""
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


@dataclass(frozen=True)
class Estimate:
    """A metric over seeds."""

    mean: float
    sd: float
    """Standard deviation over seeds; 0 if there is only one."""
    floor: float
    """Mean over the same seeds of what a perfect generator gets."""
    n: int
    """Number of seeds."""

    @property
    def error(self) -> float:
        """Standard error of the mean."""
        return self.sd / math.sqrt(self.n)


def estimate(metrics: Sequence[Metrics], name: str) -> Estimate:
    """Mean and standard deviation of a metric over runs that differ in their seeds."""
    values = [_defined(m[name].value, name) for m in metrics]
    sd = stdev(values) if len(values) > 1 else 0.0
    floor = fmean(_defined(m[name].floor, f"floor of {name}") for m in metrics)
    return Estimate(fmean(values), sd, floor, len(values))


def _defined(number: float | None, name: str) -> float:
    if number is None:
        raise ValueError(f"the {name} of a run is undefined")
    return number


def winner(name: str, estimates: Mapping[Direction, Estimate]) -> str:
    """Which of two is better by more than two standard errors of the difference; "tie" if none is.

    Raises ValueError unless there are two.
    """
    if len(estimates) != 2:
        raise ValueError(f"expected two estimates to compare, got {len(estimates)}")
    (a, x), (b, y) = estimates.items()
    if abs(x.mean - y.mean) <= 2 * math.hypot(x.error, y.error):
        return "tie"
    return a if (x.mean < y.mean) == LOWER_IS_BETTER[name] else b
