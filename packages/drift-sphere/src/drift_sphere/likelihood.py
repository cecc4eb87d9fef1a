"""Log-likelihood of held-out points under a kernel density estimate of samples."""

import math

from drift_core import Gaussian, Sphere, smoothed_log_density
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
    return max(BANDWIDTHS, key=lambda bandwidth: mean_log_density(points, val, bandwidth))


def mean_log_density(points: Float[Tensor, "n 3"], x: Float[Tensor, "m 3"], bandwidth: float) -> float:
    """Mean over `x` of the log-density of the kernels exp(-d^2 / (2 bandwidth^2)) around `points`.

    d is the angle; the density integrates to 1 over the sphere. O(n + m) memory.
    """
    log_sums = smoothed_log_density(Sphere(), Gaussian(bandwidth), x, points)
    return float(log_sums.double().mean()) - math.log(len(points)) - math.log(kernel_mass(bandwidth))


def kernel_mass(bandwidth: float) -> float:
    """Integral of exp(-d^2 / (2 bandwidth^2)) over the unit sphere, d the angle from a point."""
    from scipy.integrate import quad  # takes half a second to import

    far = min(math.pi, 12 * bandwidth)  # e^-72 of the integrand is left beyond
    return 2 * math.pi * quad(lambda d: math.sin(d) * math.exp(-((d / bandwidth) ** 2) / 2), 0, far)[0]
