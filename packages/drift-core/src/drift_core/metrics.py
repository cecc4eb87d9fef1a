"""Metrics of a generator over several draws, beside those of a perfect generator."""

import math
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Any

Metrics = dict[str, dict[str, Any]]
"""By name of metric what `summary` gives."""


def summary(values: Sequence[float], floors: Sequence[float]) -> dict[str, float | None]:
    """Mean and standard deviation of one draw of a metric and of its floor: value, std, floor, floor_std.

    The standard deviation of a single draw is 0. Where a draw is NaN, as it has no such metric, both are
    None.
    """
    (value, std), (floor, floor_std) = _moments(values), _moments(floors)
    return {"value": value, "std": std, "floor": floor, "floor_std": floor_std}


def _moments(draws: Sequence[float]) -> tuple[float | None, float | None]:
    if any(map(math.isnan, draws)):
        return None, None
    return fmean(draws), stdev(draws) if len(draws) > 1 else 0.0
