"""Studies: both directions of the drift at their best step sizes, trained with several seeds and compared."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, product
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Generic, Literal, Protocol, TypeVar, get_args, runtime_checkable

from drift_core.files import atomic_path, write_json
from drift_core.runs.metrics import Metrics

from drift_synthetic.domain import SyntheticConfig, SyntheticNetworkConfig
from drift_synthetic.trials import Trial, run_trials

K = TypeVar("K")
S = TypeVar("S")
V = TypeVar("V", bound="Variant")

Direction = Literal["displacement", "gradient"]
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)

STEP_SIZES = (0.05, 1.0)
"""One per direction: the kernel gradient grows like 1 / lengthscale, the displacement like lengthscale."""

LONGEST_STEP = 1.0
"""Longest step of a sample: the large step size would move some off the hyperboloid's chart."""

TUNING_SEED = 1000
"""Seed of the runs that choose step sizes; they are scored on the validation stream."""

LOWER_IS_BETTER = {"sliced_wasserstein": True, "c2st": True, "tile_accuracy": False}
"""Whether lower values of each metric are better."""


@runtime_checkable
class Variant(Protocol):
    """A variant that a study compares with others."""

    @property
    def folder(self) -> str:
        """Folder of its runs."""

    @property
    def settings(self) -> dict[str, Any]:
        """Settings in which variants differ, by name."""


@dataclass(frozen=True)
class Budget:
    """Size of a study."""

    steps: int
    batch_size: int
    seeds: int
    eval_draws: int
    lengthscales: tuple[str, ...]
    """Lengthscales at each of which the directions are compared."""
    step_sizes: tuple[float, ...] = STEP_SIZES
    """Step sizes from which each variant takes the best at each lengthscale."""
    codebook_size: int = SyntheticNetworkConfig.codebook_size
    """Codebook entries of every generator; 0: Gaussian latents alone."""

    def config(self, variant: Variant, step_size: float, seed: int) -> SyntheticConfig:
        """Settings of a run; variants differ only in `Variant.settings` and the step size."""
        return SyntheticConfig.of(
            **variant.settings,
            step_size=step_size,
            max_step=LONGEST_STEP,
            steps=self.steps,
            batch_size=self.batch_size,
            seed=seed,
            eval_draws=self.eval_draws,
            codebook_size=self.codebook_size,
        )


@dataclass(frozen=True)
class Choice(Generic[S]):
    """A chosen setting, and the metric of its trial."""

    setting: S
    value: float


def choose(
    candidates: Mapping[tuple[K, S], Trial], metric: str, out: Path, workers: int
) -> dict[K, Choice[S]]:
    """Setting with the best metric for each key, from trials by (key, setting)."""
    metrics = run_trials(list(candidates.values()), out, workers, "tuning")
    sign = 1 if LOWER_IS_BETTER[metric] else -1
    best: dict[K, Choice[S]] = {}
    for (key, setting), trial in candidates.items():
        value = _defined(metrics[trial.name][metric].value, metric)
        if key not in best or sign * value < sign * best[key].value:
            best[key] = Choice(setting, value)
    return best


def choose_step_sizes(
    variants: Iterable[V], budget: Budget, metric: str, out: Path, workers: int
) -> dict[V, Choice[float]]:
    """Step size of each variant, the best by a metric on the validation stream."""
    candidates = {
        (variant, step_size): Trial(
            f"{variant.folder}/tuning-step-{step_size:g}",
            budget.config(variant, step_size, TUNING_SEED),
            "val",
            (metric,),
        )
        for variant, step_size in product(variants, budget.step_sizes)
    }
    return choose(candidates, metric, out, workers)


def run_seeds(
    chosen: Mapping[V, Choice[float]], budget: Budget, metrics: Iterable[str], out: Path, workers: int
) -> dict[V, list[Metrics]]:
    """Train each variant with its step size and all seeds, and score the runs on the test stream."""
    names = tuple(metrics)
    trials = {
        variant: [
            Trial(f"{variant.folder}/seed-{k}", budget.config(variant, choice.setting, k), metrics=names)
            for k in range(budget.seeds)
        ]
        for variant, choice in chosen.items()
    }
    found = run_trials(list(chain(*trials.values())), out, workers, "seeds")
    return {variant: [found[trial.name] for trial in group] for variant, group in trials.items()}


def folder_of(*labels: object) -> str:
    """Folder name made of labels; colons of lengthscales are replaced."""
    return "-".join(str(label) for label in labels).replace(":", "-to-")


def write_table(path: Path, content: Mapping[str, Any], markdown: str) -> None:
    """Write a table as path.json and path.md."""
    write_json(path.with_suffix(".json"), content)
    with atomic_path(path.with_suffix(".md")) as part:
        part.write_text(markdown)


@dataclass(frozen=True)
class Estimate:
    """A metric over seeds."""

    mean: float
    sd: float
    """Standard deviation over seeds; 0 if there is only one."""
    floor: float
    """Mean of the floor over the same seeds."""
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


def compare(pair: Mapping[Direction, Sequence[Metrics]], name: str) -> dict[str, Any]:
    """Estimates of a metric for both directions, and which is better."""
    found = {direction: estimate(metrics, name) for direction, metrics in pair.items()}
    return {**{direction: asdict(e) for direction, e in found.items()}, "better": winner(name, found)}


def winner(name: str, estimates: Mapping[Direction, Estimate]) -> str:
    """Which of two is better by more than two standard errors of the difference; "tie" if neither is.

    Raises ValueError unless there are two.
    """
    if len(estimates) != 2:
        raise ValueError(f"expected two estimates to compare, got {len(estimates)}")
    (a, x), (b, y) = estimates.items()
    if abs(x.mean - y.mean) <= 2 * math.hypot(x.error, y.error):
        return "tie"
    return a if (x.mean < y.mean) == LOWER_IS_BETTER[name] else b
