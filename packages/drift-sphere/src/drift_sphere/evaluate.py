"""Metrics of a generator and their floors, the values that a perfect generator would get."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from drift_core.runs.datasets import cache_folder
from drift_core.runs.floors import Floors, Key, cached_floors
from drift_core.runs.metrics import Measured, Metrics, evaluate_draws
from drift_core.seeds import generator_for
from jaxtyping import Float
from torch import Generator, Tensor

from drift_sphere.coordinates import check_on_sphere
from drift_sphere.likelihood import log_likelihood
from drift_sphere.metrics import (
    kernel_sum,
    mmd,
    mmd2_unbiased,
    nn_accuracy,
    one_thread,
    sinkhorn_and_cost,
    transport_cost,
)

Sampler = Callable[[int, Generator], Tensor]
"""Draws n unit vectors [n, 3] with a generator of random numbers."""

MANY = 4096
"""Number of generated points of `mmd2_unbiased`, and maximum number of test points."""

LIKELIHOOD_POINTS = 100_000
"""Number of generated points of `log_likelihood`."""

SINKHORN_POINTS = 640
"""Maximum number of points on either side in `sinkhorn` and `sinkhorn_cost`."""

_LIKELIHOOD = 4
"""Stream of random numbers of these points, which leaves the draws of the other metrics as they are."""

VERSION = 1
"""Raise this when the same data are to give other floors; the sizes count already."""


class Comparison(NamedTuple):
    """Statistics of `size` generated points against fixed test points."""

    names: tuple[str, ...]
    size: int
    distances: Callable[[Tensor], tuple[float, ...]]


@one_thread()
def evaluate(
    sampler: Sampler,
    train: Float[Tensor, "n 3"],
    test: Float[Tensor, "m 3"],
    draws: int = 20,
    seed: int = 0,
    val: Float[Tensor, "k 3"] | None = None,
) -> Metrics:
    """Score `sampler` against `test` over the draws; metrics by name.

    The floor is the same metric, of the same sizes and the same test points, for training points
    (`resample`); it depends on the data and `seed` alone. The standard deviations are those of one draw
    (0 if there is only one).

    With validation points `val` there is the `log_likelihood` of the test points too, under one draw of
    100,000 points. Its floor is that under the training points themselves: what a generator that recites
    them would get, which one that generalises exceeds.

    Raises ValueError for draws < 1, fewer than 2 points, and samples or data off the sphere.
    """
    if draws < 1 or min(len(train), len(test)) < 2:
        raise ValueError(f"{draws} draws, {len(train)} training and {len(test)} test points are too few")
    check_on_sphere(train, "training points")
    check_on_sphere(test, "test points")
    metrics = sphere_metrics(thin(test, MANY, seed))
    floors = sphere_floors(metrics, train, test, draws, seed)
    generator = Generator().manual_seed(seed)

    def draw(size: int) -> Tensor:
        sample = sampler(size, generator)
        check_on_sphere(sample, "samples")
        return sample.to(test)

    def measure(k: int) -> Measured:
        values, floor = measured(metrics, draw), floors[k]
        if k > 0 or val is None:
            return values, floor
        samples = sampler(LIKELIHOOD_POINTS, generator_for(seed, _LIKELIHOOD)).to(test)
        value, anchor = (log_likelihood(points, thin(val, MANY, seed), test) for points in (samples, train))
        return values | {"log_likelihood": value}, floor | {"log_likelihood": anchor}

    return evaluate_draws(measure, draws)


def sphere_floors(
    metrics: Sequence[Comparison],
    train: Float[Tensor, "n 3"],
    test: Float[Tensor, "m 3"],
    draws: int,
    seed: int,
) -> Floors:
    """The metrics of training points in place of samples, from the cache if they are in it."""
    generator = Generator().manual_seed(seed)
    sizes = repr([(metric.names, metric.size) for metric in metrics])
    key: Key = {"version": VERSION, "train": train, "test": test, "metrics": sizes, "seed": seed}
    return cached_floors(
        cache_folder("sphere"),
        key,
        lambda _: measured(metrics, lambda size: resample(train, size, generator)),
        draws,
    )


def measured(metrics: Sequence[Comparison], draw: Callable[[int], Tensor]) -> dict[str, float]:
    """The metrics by name, each of a sample that is drawn for it."""
    values: dict[str, float] = {}
    for metric in metrics:
        values |= zip(metric.names, metric.distances(draw(metric.size)), strict=True)
    return values


def sphere_metrics(test: Float[Tensor, "m 3"]) -> list[Comparison]:
    """The metrics against `test`, with what depends on `test` alone computed once."""
    few = test[:SINKHORN_POINTS]
    y_sum, y_cost = kernel_sum(test), transport_cost(few, few)
    return [
        Comparison(("mmd",), len(test), lambda x: (mmd(x, test, y_sum),)),
        Comparison(("mmd2_unbiased",), MANY, lambda x: (mmd2_unbiased(x, test, y_sum),)),
        Comparison(("sinkhorn", "sinkhorn_cost"), len(few), lambda x: sinkhorn_and_cost(x, few, y_cost)),
        Comparison(("nn_accuracy",), len(test), lambda x: (nn_accuracy(x, test),)),
    ]


def resample(points: Float[Tensor, "n 3"], size: int, generator: Generator) -> Float[Tensor, "size 3"]:
    """Draw `size` of the points, in place of samples of a generator that has learnt their distribution.

    Up to half of the points are drawn without replacement, like fresh data. Beyond that, draws would share
    most of their points and understate their variance; they are drawn with replacement.
    """
    n = len(points)
    if 2 * size <= n:
        return points[torch.randperm(n, generator=generator)[:size]]
    return points[torch.randint(n, (size,), generator=generator)]


def thin(points: Float[Tensor, "n 3"], size: int, seed: int) -> Float[Tensor, "k 3"]:
    """At most `size` of the points, a random subset in random order that `seed` determines."""
    order = torch.randperm(len(points), generator=Generator().manual_seed(seed))
    return points[order[:size]]
