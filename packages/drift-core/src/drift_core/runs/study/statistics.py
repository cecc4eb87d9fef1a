"""Means over seeds, and whether two of them differ."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from scipy.special import stdtr

from drift_core.runs.metrics import Metrics

LEVEL = 0.05
"""Level of the tests of differences."""


@dataclass(frozen=True)
class Estimate:
    """A metric over seeds."""

    mean: float
    sd: float
    """Standard deviation over seeds; 0 if there is only one."""
    floor: float | None
    """Mean of the floor over the same seeds; None where there is no floor."""
    n: int
    """Number of seeds."""
    values: tuple[float, ...] = ()
    """Value of each seed."""
    floor_sd: float | None = None
    """Standard deviation of one draw of the floor; mean over the seeds."""

    @property
    def error(self) -> float:
        """Standard error of the mean."""
        return self.sd / math.sqrt(self.n)

    @property
    def ratio(self) -> float | None:
        """Mean over floor; None where the floor is undefined or not positive."""
        return self.mean / self.floor if self.floor is not None and self.floor > 0 else None


def estimate(metrics: Sequence[Metrics], name: str) -> Estimate:
    """Mean and standard deviation of a metric over runs that differ in their seeds.

    Raises ValueError for a metric that is undefined in some run.
    """
    values = [metric.value for metric in (found[name] for found in metrics)]
    defined = [value for value in values if value is not None]
    if len(defined) < len(values):
        raise ValueError(f"the {name} of a run is undefined")
    sd = stdev(defined) if len(defined) > 1 else 0.0
    floor, floor_sd = (
        _mean(getattr(found[name], part) for found in metrics) for part in ("floor", "floor_std")
    )
    return Estimate(fmean(defined), sd, floor, len(defined), tuple(defined), floor_sd)


def _mean(values: Iterable[float | None]) -> float | None:
    """Mean of the values that are defined; None without any."""
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def paired_p_value(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Two-sided p-value of Student's paired t-test that two metrics have one mean.

    Values are paired by seed: runs of one seed see the same draws of data, and are scored against the same
    references. None for fewer than two pairs. Equal differences other than 0 give 0.
    Raises ValueError for unequal numbers.
    """
    differences = [a - b for a, b in zip(x, y, strict=True)]
    n = len(differences)
    if n < 2:
        return None
    mean, error = fmean(differences), stdev(differences) / math.sqrt(n)
    if error == 0:
        return 1.0 if mean == 0 else 0.0
    return float(2 * stdtr(n - 1, -abs(mean) / error))


def differ(x: Estimate, y: Estimate) -> bool:
    """Whether the means of two metrics differ significantly, paired by seed, at the level of 5%."""
    p = paired_p_value(x.values, y.values)
    return p is not None and p < LEVEL
