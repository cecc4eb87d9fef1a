"""Two-sample statistics of generated points and test points on the sphere."""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from drift_core import Gaussian, Laplace, Sphere, smoothed_log_density
from jaxtyping import Float, Float64, Int
from scipy.spatial import KDTree
from torch import Tensor

REGULARISATION = 0.1
"""Entropic regularisation of `sinkhorn`, whose cost is the distance in radians; 640 km on the Earth."""

_SPHERE = Sphere()
_KERNEL = Gaussian(2**-0.5)
"""The kernel exp(-d^2) of the geodesic distance d in radians, without a factor 1/2."""
_ROWS = 1024
"""Rows of the blocks in which a symmetric sum leaves out half of the pairs."""

_LAPLACE = Laplace(REGULARISATION)
_ITERATIONS, _RELAXATION = 1000, 1.7
"""Sinkhorn's iterations at most, and how far they go beyond the plain update."""

_NEIGHBOURS, _TIE = 8, 1 + 1e-9
"""Neighbours that are looked up at first, and the ratio of distances up to which they count as equal."""


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


def kernel_sum(x: Float[Tensor, "n 3"]) -> float:
    """Sum of exp(-d^2) over all ordered pairs of `x`, a point with itself included; O(n) memory."""
    total = 0.0
    for start in range(0, len(x), _ROWS):
        rows = x[start : start + _ROWS]
        total += 2 * cross_sum(rows, x[start:]) - cross_sum(rows, rows)
    return total


def cross_sum(x: Float[Tensor, "n 3"], y: Float[Tensor, "m 3"]) -> float:
    """Sum of exp(-d^2) over all pairs of `x` and `y`, d the geodesic distance in radians; O(n + m) memory."""
    return float(smoothed_log_density(_SPHERE, _KERNEL, x, y).double().exp().sum())


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
    `transport_cost(y, y)`, if known. O(n + m) memory. Source: Feydy et al. (2019), equation 3.
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
    Sinkhorn's iterations: symmetric ones for equal samples (Feydy et al. 2019), over-relaxed ones for others
    (Thibault et al. 2021). Warns if these miss `tolerance` (2-norm of the marginals' error). O(n + m) memory.
    """
    found = _self_potentials(x, tolerance) if torch.equal(x, y) else _potentials(x, y, tolerance)
    f, g, error = found
    if not error <= tolerance:
        message = f"Sinkhorn stopped at an error {error:.1e} of the marginals, above {tolerance:.1e}"
        warnings.warn(message, RuntimeWarning, stacklevel=3)
    return float(f.double().mean() + g.double().mean())


def _potentials(x: Tensor, y: Tensor, tolerance: float) -> tuple[Tensor, Tensor, float]:
    """Potentials f of x and g of y, of which g is the update by f, and the error of the marginals of x."""
    f, g, least = x.new_zeros(len(x)), soft_minimum(y, x, x.new_zeros(len(x))), math.inf
    for _ in range(_ITERATIONS):
        update = soft_minimum(x, y, g)
        error = _marginal_error(f, update)
        # Where over-relaxed steps lead astray, plain ones, which always converge, lead back.
        relaxation = _RELAXATION if error < 2 * least else 1.0
        f, least = f + relaxation * (update - f), min(least, error)
        if error <= tolerance:
            break
        g = g + relaxation * (soft_minimum(y, x, f) - g)
    return f, soft_minimum(y, x, f), error


def _self_potentials(x: Tensor, tolerance: float) -> tuple[Tensor, Tensor, float]:
    """The same for x and itself, whose two potentials are equal at the optimum."""
    f, error = x.new_zeros(len(x)), math.inf
    for _ in range(_ITERATIONS):
        g = soft_minimum(x, x, f)
        error = _marginal_error(f, g)
        if error <= tolerance:
            break
        f = (f + g) / 2
    return f, g, error


def _marginal_error(potential: Tensor, update: Tensor) -> float:
    """2-norm of the error of the weights of a side with the potential, for which `update` would be right."""
    return float(((potential - update) / REGULARISATION).expm1().norm()) / len(potential)


def soft_minimum(
    x: Float[Tensor, "n 3"], y: Float[Tensor, "m 3"], potential: Float[Tensor, " m"]
) -> Float[Tensor, " n"]:
    """Sinkhorn's update f_i = -reg log mean_j exp((potential_j - d(x_i, y_j)) / reg), in radians."""
    log_weight = potential / REGULARISATION - math.log(len(y))
    return -REGULARISATION * smoothed_log_density(_SPHERE, _LAPLACE, x, y, log_weight=log_weight)


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
    tree, size = KDTree(distinct.numpy()), _NEIGHBOURS
    while True:  # the first neighbour is the point itself
        found = tree.query(distinct.numpy(), range(2, size + 1))
        distance, index = map(torch.from_numpy, found)
        nearest = distance <= distance[:, :1] * _TIE
        if size > len(distinct) or not nearest[:, -1].any():
            break
        size *= 2
    # Where there are fewer neighbours, their index is that of a last, empty place.
    weights = torch.cat((counts, counts.new_zeros(1, 2)))
    votes = (nearest[..., None] * weights[index]).sum(1).double()
    return votes / votes.sum(1, keepdim=True)
