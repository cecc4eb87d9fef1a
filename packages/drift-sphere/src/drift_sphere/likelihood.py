"""Log-likelihood of held-out points under a kernel density estimate of samples."""

import math
from collections.abc import Sequence

from drift_core import Gaussian, Sphere, smoothed_log_densities
from jaxtyping import Float
from torch import Tensor

BANDWIDTHS = tuple(0.0025 * 2**k for k in range(8))
"""Bandwidths in radians, 16 to 2,000 km on the Earth, of which the best on validation points is taken."""


def log_likelihood(
    points: Float[Tensor, "n 3"], val: Float[Tensor, "k 3"], test: Float[Tensor, "m 3"]
) -> float:
    """Mean log-density of `test`, in nats per point, under the kernel density estimate of `points`.

    The bandwidth is `best_bandwidth` for `val`. The density is that per steradian.
    """
    return mean_log_density(points, test, best_bandwidth(points, val))


def best_bandwidth(points: Float[Tensor, "n 3"], val: Float[Tensor, "k 3"]) -> float:
    """The one of `BANDWIDTHS` that gives `val` the highest mean log-density around `points`."""
    found = mean_log_densities(points, val, BANDWIDTHS)
    return max(zip(found, BANDWIDTHS, strict=True))[1]


def mean_log_density(points: Float[Tensor, "n 3"], x: Float[Tensor, "m 3"], bandwidth: float) -> float:
    """Mean over `x` of the log-density of the kernels exp(-d^2 / (2 bandwidth^2)) around `points`.

    d is the angle; the density integrates to 1 over the sphere. O(n + m) memory.
    """
    return mean_log_densities(points, x, [bandwidth])[0]


def mean_log_densities(
    points: Float[Tensor, "n 3"], x: Float[Tensor, "m 3"], bandwidths: Sequence[float]
) -> list[float]:
    """`mean_log_density` for each of several bandwidths, in one pass over the pairs."""
    log_sums = smoothed_log_densities(Sphere(), list(map(Gaussian, bandwidths)), x, points)
    means = log_sums.double().mean(1) - math.log(len(points))
    return [float(mean) - math.log(kernel_mass(b)) for mean, b in zip(means, bandwidths, strict=True)]


def kernel_mass(bandwidth: float) -> float:
    """Integral of exp(-d^2 / (2 bandwidth^2)) over the unit sphere, d the angle from a point."""
    from scipy.integrate import quad  # takes half a second to import

    far = min(math.pi, 12 * bandwidth)  # e^-72 of the integrand is left beyond
    return 2 * math.pi * quad(lambda d: math.sin(d) * math.exp(-((d / bandwidth) ** 2) / 2), 0, far)[0]
