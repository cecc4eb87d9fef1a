"""Studies: both directions of the drift at their best step sizes, trained with several seeds and compared."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, get_args, runtime_checkable

from drift_core.runs import page
from drift_core.runs.domain import Split
from drift_core.runs.metrics import Metrics
from drift_core.runs.study import Cell, Choice, Estimate, Result, choose, estimate, run_seeds
from drift_core.runs.study.trials import AnyDomain

from drift_synthetic.domain import DOMAIN, SyntheticConfig, SyntheticNetworkConfig, SyntheticRun
from drift_synthetic.evaluate import evaluate

V = TypeVar("V", bound="Variant")

Direction = Literal["displacement", "gradient"]
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)

STEP_SIZES = (0.05, 1.0)
"""One per direction: the kernel gradient grows like 1 / lengthscale, the displacement like lengthscale."""

LONGEST_STEP = 1.0
"""Longest step of a sample: the large step size would move some off the hyperboloid's chart."""

VALIDATION = "validation"
"""Name of the metric of `score_with_validation` that settings can be chosen by."""

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
    tuning_settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the runs that choose the step size, such as fewer steps."""
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


def score(
    domain: AnyDomain, run: SyntheticRun, on: Split, names: tuple[str, ...], draws: int | None = None
) -> Metrics:
    """Metrics `names` of a run on a stream, over `draws` (none: those of its settings)."""
    settings = run.config.run
    return evaluate(run.generator.sample, run.data, draws or settings.eval_draws, settings.seed, on, names)


def score_with_validation(
    domain: AnyDomain, run: SyntheticRun, names: tuple[str, ...], validated: str
) -> Metrics:
    """Metrics `names` of a run on the test stream; `validated` on the validation stream, as `VALIDATION`."""
    found = score(domain, run, "val", (validated,))
    return score(domain, run, "test", names) | {VALIDATION: found[validated]}


def make_cell(
    variant: Variant, budget: Budget, metrics: Iterable[str], tuning: str, tuning_draws: int | None = None
) -> Cell:
    """The cell of a variant: its step size is the best by the metric `tuning` on the validation stream."""
    return Cell(
        variant.folder,
        DOMAIN,
        budget.config(variant, budget.step_sizes[0], 0),
        {f"step-{size:g}": {"step_size": size} for size in budget.step_sizes},
        partial(score, on="val", names=(tuning,), draws=tuning_draws),
        partial(score, on="test", names=tuple(metrics)),
        tuning_settings=budget.tuning_settings,
    )


def run_variants(
    cells: Mapping[V, Cell], seeds: int, out: Path, workers: int
) -> tuple[dict[V, Choice], dict[V, list[Result]]]:
    """Choose the step size of each variant, train it with all seeds, and score it on the test stream."""
    chosen = choose(cells, out, workers)
    return chosen, run_seeds(cells, chosen, seeds, out, workers)


def folder_of(*labels: object) -> str:
    """Folder name made of labels; colons of lengthscales are replaced."""
    return "-".join(str(label) for label in labels).replace(":", "-to-")


def compare(pair: Mapping[Direction, Sequence[Result]], name: str) -> dict[str, Any]:
    """Estimates of a metric for both directions, and which is better."""
    found = {
        direction: estimate([result.metrics for result in results], name)
        for direction, results in pair.items()
    }
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


def compared(found: Mapping[str, Any], digits: int) -> tuple[page.Cell, ...]:
    """Cells of what `compare` returned: both directions, the better one bold, the floor, and which it is."""
    cells = []
    for direction in DIRECTIONS:
        mean, sd = found[direction]["mean"], found[direction]["sd"]
        text = f"{mean:.{digits}f} ± {sd:.{digits}f}"
        cells.append(page.Cell(text, mean, strong=found["better"] == direction))
    floor = found[DIRECTIONS[-1]]["floor"]
    return (*cells, page.Cell(f"{floor:.{digits}f}", floor), page.Cell(found["better"]))


def every_figure(folder: Path) -> list[page.Figure]:
    """The figures in a folder, named by their files."""
    return [page.Figure(path, path.stem.replace("-", " ")) for path in sorted(folder.glob("*.png"))]
