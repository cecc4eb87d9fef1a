"""Metrics of a generator over several draws, and their floors for a perfect generator."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
from jaxtyping import Shaped
from tqdm.auto import tqdm

from drift_core.files import write_json
from drift_core.runs.folder import METRICS


@dataclass(frozen=True)
class Metric:
    """A metric over draws, and its floor: the value of a perfect generator. None: undefined.

    Prints as "0.0342 ± 0.0090 (floor 0.0351 ± 0.0080)"; a format applies to each number, as in
    f"{metric:.2f}".
    """

    value: float | None
    """Mean over the draws."""
    std: float | None
    """Standard deviation of one draw; 0 if there is only one."""
    floor: float | None
    """Mean of the floor."""
    floor_std: float | None
    """Standard deviation of one draw of the floor."""

    @property
    def ratio(self) -> float | None:
        """Value over floor; None where either is undefined or the floor is not positive."""
        if self.value is None or self.floor is None or self.floor <= 0:
            return None
        return self.value / self.floor

    def __format__(self, spec: str) -> str:
        value = with_spread(self.value, self.std, spec or ".4f")
        return f"{value} (floor {with_spread(self.floor, self.floor_std, spec or '.4f')})"

    def __str__(self) -> str:
        return format(self)


Metrics = dict[str, Metric]
"""Metrics by name."""


def summary(values: Sequence[float], floors: Sequence[float]) -> Metric:
    """Mean and standard deviation of one draw of a metric and of its floor.

    The standard deviation of a single draw is 0. If any draw is NaN (undefined), both are None.
    """
    return Metric(*_moments(values), *_moments(floors))


Measured = tuple[Mapping[str, float], Mapping[str, float]]
"""Metrics of one draw by name, and their floors."""


def evaluate_draws(measure: Callable[[int], Measured], draws: int) -> Metrics:
    """Mean and standard deviation over draws of metrics and of their floors, with a progress bar.

    Args:
        measure: metrics and floors of the k-th draw; a later draw may leave out slow metrics.
        draws: number of draws.

    Raises:
        ValueError: draws < 1.
    """
    check_draws(draws)
    values: dict[str, list[float]] = {}
    floors: dict[str, list[float]] = {}
    for k in tqdm(range(draws), desc="evaluate"):
        for found, collected in zip(measure(k), (values, floors), strict=True):
            for name, value in found.items():
                collected.setdefault(name, []).append(value)
    return {name: summary(values[name], floors[name]) for name in values}


def check_draws(draws: int) -> None:
    """Raise ValueError for draws < 1."""
    if draws < 1:
        raise ValueError(f"`draws` must be at least 1, got {draws}")


def frechet(x: Shaped[np.ndarray, "n d"], y: Shaped[np.ndarray, "m d"]) -> float:
    """Squared Fréchet distance between normal laws with the means and covariances of two samples.

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), as in the FID of Heusel et al. (2017); the trace of the
    root is that of (C1^(1/2) C2 C1^(1/2))^(1/2), which is symmetric. NaN for fewer than 2 rows.
    """
    if min(len(x), len(y)) < 2:
        return math.nan
    c1, c2 = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    values, vectors = np.linalg.eigh(c1)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ c2 @ root).clip(min=0)).sum()
    distance = np.square(x.mean(0) - y.mean(0)).sum() + np.trace(c1) + np.trace(c2) - 2 * cross
    return max(0.0, float(distance))


def metrics_table(metrics: Mapping[str, Metric]) -> str:
    """Table of metrics and floors, mean and standard deviation over the draws, one line per metric."""
    lines = [f"{'metric':<26}{'value':>20}{'floor':>20}{'value / floor':>16}"]
    for name, metric in metrics.items():
        value = with_spread(metric.value, metric.std, ".4f")
        floor = with_spread(metric.floor, metric.floor_std, ".4f")
        ratio = "-" if metric.ratio is None else f"{metric.ratio:.2f}"
        lines.append(f"{name:<26}{value:>20}{floor:>20}{ratio:>16}")
    return "\n".join(lines)


def write_metrics(run: Path, metrics: Mapping[str, Metric]) -> None:
    """Write the metrics.json of a run: {name: {"value", "std", "floor", "floor_std"}}, null for None."""
    write_json(run / METRICS, {name: asdict(metric) for name, metric in metrics.items()})


def read_metrics(run: Path) -> Metrics:
    """Read what `write_metrics` wrote.

    Raises:
        ValueError: there is no such file, or it is damaged.
    """
    path = run / METRICS
    if not path.is_file():
        raise ValueError(f"{run} has no {METRICS}: finish the run with `resume`, or evaluate it")
    try:
        return {name: Metric(**entry) for name, entry in json.loads(path.read_text()).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None


def with_spread(value: float | None, std: float | None, spec: str) -> str:
    """A value and its standard deviation, each in the format `spec`; "undefined" without them."""
    if value is None or std is None:
        return "undefined"
    return f"{value:{spec}} ± {std:{spec}}"


def _moments(draws: Sequence[float]) -> tuple[float | None, float | None]:
    if any(map(math.isnan, draws)):
        return None, None
    return fmean(draws), stdev(draws) if len(draws) > 1 else 0.0
