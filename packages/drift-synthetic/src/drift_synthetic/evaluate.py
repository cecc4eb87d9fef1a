"""Metrics of a generator and their floors, the values that a perfect generator would get."""

from collections.abc import Callable, Collection, Iterable
from functools import lru_cache

from drift_core.runs.datasets import cache_folder
from drift_core.runs.domain import Split
from drift_core.runs.floors import Floors, cached_floors
from drift_core.runs.metrics import Measured, Metrics, evaluate_draws
from drift_core.seeds import generator_for
from torch import Generator, Tensor

from drift_synthetic.data import Problem
from drift_synthetic.metrics import c2st, mmd, sliced_wasserstein, tile_accuracy
from drift_synthetic.space import Space
from drift_synthetic.targets import Checkerboard

Sampler = Callable[[int, Generator], Tensor]
"""Draws n points [n, d] of a space with a generator of random numbers."""

Statistic = Callable[[Tensor, Tensor], float]
"""Compares a sample [n, d] with a reference sample [m, d]."""

SIZE = 2_048
"""Points of each sample."""

C2ST_DRAWS = 3
"""Maximum number of draws of `c2st`, each of which takes as long as three of the other metrics."""

METRICS = ("sliced_wasserstein", "mmd", "tile_accuracy", "c2st")
"""Names of the metrics; each space has some of them, and `tile_accuracy` is for checkerboards only."""

VERSION = 1
"""Raise this when the same target is to give other floors; the number of points counts already."""

_STREAMS = {"test": 10, "val": 11}
_REFERENCE, _FRESH, _SAMPLE = 0, 1, 2
"""Random streams of a draw."""


def evaluate(
    sampler: Sampler,
    problem: Problem,
    draws: int = 20,
    seed: int = 0,
    on: Split = "test",
    names: Collection[str] = METRICS,
) -> Metrics:
    """Score a sampler over the draws, `c2st` over 3 of them; metrics by name.

    Each draw compares 2,048 generated points with a fresh sample of the target. The floor is the same
    metric for a second fresh sample against the same reference. "test", for reports, and "val", for
    choosing settings, are independent streams of references. Of a file, references are its held-out points,
    with as many generated points, and the floor is that of training points. The standard deviations are
    those of one draw (0 if there is only one). `names` are the metrics to compute.
    Raises ValueError for draws < 1 and for samples off the space.
    """
    stream = _STREAMS[on]
    statistics = {name: found for name, found in statistics_of(problem).items() if name in names}
    floors = synthetic_floors(problem, seed, on, list(statistics), draws)

    def measure(k: int) -> Measured:
        reference = problem.held_out(SIZE, generator_for(seed, stream, k, _REFERENCE), on)
        sample = sampler(len(reference), generator_for(seed, stream, k, _SAMPLE))
        check_on_space(problem.space, sample)
        return {name: statistics[name](sample, reference) for name in due(statistics, k)}, floors[k]

    return evaluate_draws(measure, draws)


def due(names: Iterable[str], k: int) -> list[str]:
    """Names of the metrics of the k-th draw."""
    return [name for name in names if name != "c2st" or k < C2ST_DRAWS]


def synthetic_floors(problem: Problem, seed: int, on: Split, names: Collection[str], draws: int) -> Floors:
    """Floors of all draws, from the cache if they are in it."""
    reference, fresh = compared(problem, seed, on, 0)
    settings = repr((VERSION, problem.title, seed, _STREAMS[on], tuple(names)))
    return cached_floors(
        cache_folder("synthetic"),
        {"settings": settings, "fresh": fresh, "reference": reference},
        lambda k: {name: floor(problem, seed, on, k, name) for name in due(names, k)},
        draws,
    )


@lru_cache(maxsize=1024)
def floor(problem: Problem, seed: int, on: Split, k: int, name: str) -> float:
    """Metric of a fresh sample of the target in place of the k-th draw; cached, because runs share it."""
    reference, fresh = compared(problem, seed, on, k)
    return statistics_of(problem)[name](fresh, reference)


def compared(problem: Problem, seed: int, on: Split, k: int) -> tuple[Tensor, Tensor]:
    """Reference of the k-th draw, and as many points that a perfect generator could have drawn."""
    stream = _STREAMS[on]
    reference = problem.held_out(SIZE, generator_for(seed, stream, k, _REFERENCE), on)
    return reference, problem.sample(len(reference), generator_for(seed, stream, k, _FRESH))


def statistics_of(problem: Problem) -> dict[str, Statistic]:
    """The metrics of a problem: those of its space, tile accuracy for checkerboards only."""
    space, board = problem.space, problem.target
    statistics: dict[str, Statistic] = {
        "sliced_wasserstein": lambda x, y: sliced_wasserstein(space.embed(x), space.embed(y)),
        "mmd": lambda x, y: mmd(space.embed(x), space.embed(y)),
    }
    if isinstance(board, Checkerboard):
        statistics["tile_accuracy"] = lambda x, _: tile_accuracy(board, space.chart(x))
    statistics["c2st"] = lambda x, y: c2st(space.chart(x), space.chart(y))
    return {name: statistic for name, statistic in statistics.items() if name in space.metrics}


def check_on_space(space: Space, points: Tensor) -> None:
    """Raise ValueError unless points are finite, of the space's dimension, and on it to 1e-4."""
    shape = ("n", len(space.columns))
    if points.ndim != 2 or points.shape[1] != shape[1]:
        raise ValueError(f"points of the {space.name} have shape {list(shape)}, got {list(points.shape)}")
    off = (space.manifold.projx(points) - points).abs().amax(dim=1)
    if not bool((off < 1e-4).all()):
        row = int((~(off < 1e-4)).nonzero()[0])
        raise ValueError(f"samples: row {row} is not on the {space.name}: {points[row].tolist()}")
