"""Metrics of a generator beside their floors, the values that a perfect generator would get."""

from collections.abc import Callable, Collection, Iterable
from functools import lru_cache
from typing import Literal, NamedTuple

from drift_core.runs.metrics import Metrics, summary
from drift_core.seeds import generator_for
from torch import Generator, Tensor

from drift_synthetic.chart import Space
from drift_synthetic.data import Checkerboard, Problem
from drift_synthetic.metrics import c2st, sliced_wasserstein, tile_accuracy

Sampler = Callable[[int, Generator], Tensor]
"""Draws n points [n, d] of a space with a generator of random numbers."""

SIZE = 2_048
"""Points of each sample."""

C2ST_DRAWS = 3
"""The most draws of `c2st`, each of which takes as long as three of the others."""

METRICS = ("sliced_wasserstein", "tile_accuracy", "c2st")
"""The names of the metrics; `tile_accuracy` is one of checkerboards."""

_STREAMS = {"test": 10, "val": 11}
_REFERENCE, _FRESH, _SAMPLE = 0, 1, 2
"""Random streams of a draw."""


class Comparison(NamedTuple):
    """A statistic of a sample against a reference sample, and over how many draws it is averaged."""

    statistic: Callable[[Tensor, Tensor], float]
    draws: int


def evaluate(
    sampler: Sampler,
    problem: Problem,
    draws: int = 20,
    seed: int = 0,
    on: Literal["test", "val"] = "test",
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
    names: Collection[str] = METRICS,
) -> Metrics:
    """Score a sampler over the draws, `c2st` over 3 of them; metrics by name.

    Each draw compares 2,048 generated points with a fresh sample of the target. The floor is the same
    metric for a second fresh sample against the same reference. "test", for reports, and "val", for
    choosing settings, are independent streams of references. The standard deviations are those of one
    draw (0 if there is only one). `progress` wraps the iterable of draws, as tqdm does; `names` are the
    metrics wanted.
    Raises ValueError for draws < 1 and for samples off the space.
    """
    if draws < 1:
        raise ValueError(f"draws must be at least 1, got {draws}")
    metrics = {name: m for name, m in problem_metrics(problem, draws).items() if name in names}
    values: dict[str, list[float]] = {name: [] for name in metrics}
    floors: dict[str, list[float]] = {name: [] for name in metrics}
    for k in progress(range(draws)):
        reference = problem.sample(SIZE, generator_for(seed, _STREAMS[on], k, _REFERENCE))
        sample = sampler(SIZE, generator_for(seed, _STREAMS[on], k, _SAMPLE))
        check_on_space(problem.space, sample)
        for name, (statistic, most) in metrics.items():
            if k < most:
                values[name].append(statistic(sample, reference))
                floors[name].append(floor(problem, seed, _STREAMS[on], k, name))
    return {name: summary(values[name], floors[name]) for name in metrics}


@lru_cache(maxsize=1024)
def floor(problem: Problem, seed: int, stream: int, k: int, name: str) -> float:
    """A metric of a fresh sample of the target in place of the k-th draw; remembered, as runs share it."""
    reference, fresh = (
        problem.sample(SIZE, generator_for(seed, stream, k, part)) for part in (_REFERENCE, _FRESH)
    )
    return problem_metrics(problem, k + 1)[name].statistic(fresh, reference)


def problem_metrics(problem: Problem, draws: int) -> dict[str, Comparison]:
    """The metrics of a problem: tile accuracy on boards alone, C2ST in the chart."""
    chart, board = problem.space.chart, problem.target
    metrics = {"sliced_wasserstein": Comparison(sliced_wasserstein, draws)}
    if isinstance(board, Checkerboard):
        metrics["tile_accuracy"] = Comparison(lambda x, _: tile_accuracy(board, chart(x)), draws)
    metrics["c2st"] = Comparison(lambda x, y: c2st(chart(x), chart(y)), min(draws, C2ST_DRAWS))
    return metrics


def check_on_space(space: Space, points: Tensor) -> None:
    """Raise ValueError unless points are finite, of the space's dimension, and on it to 1e-4."""
    shape = ("n", len(space.origin))
    if points.ndim != 2 or points.shape[1] != shape[1]:
        raise ValueError(f"points of the {space.name} have shape {list(shape)}, got {list(points.shape)}")
    off = (space.manifold.projx(points) - points).abs().amax(dim=1)
    if not bool((off < 1e-4).all()):
        row = int((~(off < 1e-4)).nonzero()[0])
        raise ValueError(f"samples: row {row} is not on the {space.name}: {points[row].tolist()}")
