"""Two-sample statistics of generated points and test points on the sphere."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import ot
import torch
from drift_core import Sphere
from jaxtyping import Float, Float64, Int
from torch import Tensor

REGULARISATION = 0.1
"""Entropic regularisation of `sinkhorn`, whose cost is the distance in radians; 640 km on the Earth."""

_CHUNK = 1024
_SPHERE = Sphere()


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch's CPU operations on one thread.

    In many small operations threads mostly wait for one another, on a busy machine a hundred times longer
    than the work takes. Also, sums do not then depend on the number of threads.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def kernel(x: Float[Tensor, "n 3"], y: Float[Tensor, "m 3"]) -> Float[Tensor, "n m"]:
    """Kernel exp(-d^2) of the geodesic distance d in radians, without a factor 1/2."""
    return _SPHERE.cdist(x, y).square().neg().exp()


def kernel_sum(x: Float[Tensor, "n 3"]) -> float:
    """Sum of the kernel over all ordered pairs of `x`, a point with itself included; O(n) memory."""
    total = 0.0
    for start in range(0, len(x), _CHUNK):
        row = kernel(x[start : start + _CHUNK], x[start:])
        block = row[:, : len(row)]
        total += float(2 * row.sum(dtype=torch.float64) - block.sum(dtype=torch.float64))
    return total


def cross_sum(x: Float[Tensor, "n 3"], y: Float[Tensor, "m 3"]) -> float:
    """Sum of the kernel over all pairs of a point of `x` and a point of `y`; O(m) memory."""
    return sum(float(kernel(rows, y).sum(dtype=torch.float64)) for rows in torch.split(x, _CHUNK))


def mmd(x: Float[Tensor, "n 3"], y: Float[Tensor, "m 3"], y_sum: float | None = None) -> float:
    """Maximum mean discrepancy sqrt(max(0, V)), V the biased statistic of exp(-d^2), as published.

    V is mean k(x, x) - 2 mean k(x, y) + mean k(y, y) with the diagonals, so that two samples of the same
    distribution do not give 0. `y_sum` is `kernel_sum(y)`, if known. Source: Gretton et al. (2012),
    equation 5.
    """
    n, m = len(x), len(y)
    y_sum = kernel_sum(y) if y_sum is None else y_sum
    squared = kernel_sum(x) / n**2 - 2 * cross_sum(x, y) / (n * m) + y_sum / m**2
    return max(0.0, squared) ** 0.5


def mmd2_unbiased(x: Float[Tensor, "n 3"], y: Float[Tensor, "m 3"], y_sum: float | None = None) -> float:
    """Unbiased estimate of the squared maximum mean discrepancy with kernel exp(-d^2); can be negative.

    Like the V-statistic of `mmd`, without the diagonals. `y_sum` is `kernel_sum(y)`, if known.
    Source: Gretton et al. (2012), equation 3.
    """
    n, m = len(x), len(y)
    y_sum = kernel_sum(y) if y_sum is None else y_sum
    within = (kernel_sum(x) - n) / (n * (n - 1)) + (y_sum - m) / (m * (m - 1))
    return within - 2 * cross_sum(x, y) / (n * m)


def sinkhorn(x: Float[Tensor, "n 3"], y: Float[Tensor, "m 3"], y_cost: float | None = None) -> float:
    """Sinkhorn divergence in radians: entropic transport cost, less the mean of both self-costs.

    The cost is the geodesic distance, the regularisation 0.1 radians. Zero for equal samples. `y_cost` is
    `transport_cost(y, y)`, if known. Needs O(nm) memory. Source: Feydy et al. (2019), equation 3.
    """
    return sinkhorn_and_cost(x, y, y_cost)[0]


def sinkhorn_and_cost(
    x: Float[Tensor, "n 3"], y: Float[Tensor, "m 3"], y_cost: float | None = None
) -> tuple[float, float]:
    """`sinkhorn`, and the transport cost between `x` and `y` that it begins with, both in radians."""
    y_cost = transport_cost(y, y) if y_cost is None else y_cost
    cost = transport_cost(x, y)
    return cost - (transport_cost(x, x) + y_cost) / 2, cost


@one_thread()
def transport_cost(x: Float[Tensor, "n 3"], y: Float[Tensor, "m 3"], tolerance: float = 1e-4) -> float:
    """Entropic transport cost min <P, d> + reg KL(P | a b') of uniform weights a and b, in radians.

    It is the value of the dual, whose error is of second order in the error of the marginals, after
    POT's log-domain iterations; warns if these miss `tolerance` (2-norm of the marginals' error).
    """
    cost = _SPHERE.cdist(x, y)
    a, b = cost.new_full((len(x),), 1 / len(x)), cost.new_full((len(y),), 1 / len(y))
    plan, log = ot.bregman.sinkhorn(
        a, b, cost, REGULARISATION, "sinkhorn_log", numItermax=5000, stopThr=tolerance, warn=False, log=True
    )
    error = float(log["err"][-1])
    if not error <= tolerance:
        message = f"Sinkhorn stopped at an error {error:.1e} of the marginals, above {tolerance:.1e}"
        warnings.warn(message, RuntimeWarning, stacklevel=2)
    f, g = (log["log_u"] - a.log()).double(), (log["log_v"] - b.log()).double()
    return REGULARISATION * float(f.mean() + g.mean() + 1 - plan.sum(dtype=torch.float64))


def nn_accuracy(x: Float[Tensor, "n 3"], y: Float[Tensor, "m 3"]) -> float:
    """Leave-one-out accuracy of the 1-nearest-neighbour test between equally many `x` and `y`.

    0.5 for samples of the same distribution, 1 for separate ones, below 0.5 for copies. A point with several
    nearest neighbours, as in data with duplicates, scores the fraction of them from its own sample, so that
    the order does not matter. Source: Lopez-Paz and Oquab (2017). Raises ValueError for unequal sizes.
    """
    if len(x) != len(y):
        raise ValueError(f"1-NN accuracy needs equally many points, not {len(x)} and {len(y)}")
    distinct, index = torch.unique(torch.cat((x, y)), dim=0, return_inverse=True)
    counts = torch.stack([side.bincount(minlength=len(distinct)) for side in index.chunk(2)], dim=1)
    others = (counts.sum(1, keepdim=True) - 1).double()
    here = (counts - 1) / others.clamp(min=1)
    credit = torch.where(others > 0, here, _fraction_nearest(distinct.double(), counts))
    return float((counts * credit).sum() / len(index))


def _fraction_nearest(distinct: Float64[Tensor, "p 3"], counts: Int[Tensor, "p 2"]) -> Float64[Tensor, "p 2"]:
    """Fractions of x and y among the nearest neighbours, ties included, of each distinct point."""
    fractions = []
    for start in range(0, len(distinct), _CHUNK):
        distance = _SPHERE.cdist(distinct[start : start + _CHUNK], distinct)
        distance.diagonal(start).fill_(torch.inf)
        nearest = distance <= distance.amin(1, keepdim=True) * (1 + 1e-9)
        votes = nearest.double() @ counts.double()
        fractions.append(votes / votes.sum(1, keepdim=True))
    return torch.cat(fractions)
