"""Spectral kernels on the sphere: heat and Matern, summed over spherical harmonics."""

import math
from dataclasses import dataclass
from functools import lru_cache

import mpmath
import numpy as np
import numpy.typing as npt
from jaxtyping import Float
from torch import Tensor

from drift_core.arguments import Scalar, positive
from drift_core.kernel.fixed_point import Integers, gegenbauer_to_cosine, to_fixed_point, value_and_slope
from drift_core.kernel.interface import RadialKernel
from drift_core.kernel.table import Array, CubicTable, with_derivative


@dataclass(frozen=True)
class SphericalMatern(RadialKernel):
    """The Matern kernel of the unit sphere S^dim, a function of the angle theta in [0, pi] (radians).

    k(theta) = sum_{n=0}^{levels} a_n N_n C_n(cos theta)/C_n(1) / k(0), with C_n the Gegenbauer polynomial
    of order (dim - 1)/2 (Legendre for dim = 2, cos(n theta) for dim = 1), N_n the number of harmonics of
    degree n, lambda_n = n (n + dim - 1), a_n = (2 nu/l^2 + lambda_n)^-(nu + dim/2), and for nu = inf the heat
    kernel a_n = exp(-l^2 lambda_n / 2) (Borovitskiy et al. 2020, Matern Gaussian processes on Riemannian
    manifolds; geometric-kernels counts levels + 1). The lengthscale l is in radians.

    `levels` (at most 4096) is the highest degree, and such a series is truncated there exactly. With None the
    kernel is the whole series to float64 precision, with one exception. If the a_n of a finite nu decay too
    slowly, they are tapered smoothly to zero by degree L = 512 / min(l, 1) (at most 4096). For nu = 1/2
    this agrees with the whole series in dlog to 2e-3 at angles beyond 40 / L and to 1e-5 beyond 80 / L, far
    better for larger nu, and it rounds off the kink or cusp that a rough kernel has at 0.

    log k and its derivative are tabulated once per kernel, from sums in integer arithmetic: k(pi)
    may be 1e-50 and yet positive, where sums in float64 are noise. In float64 the tables hold log k to an
    absolute 1e-9 and dlog to a relative 1e-6; near 0, where log k is less than that, its digits are fewer.
    Raises ValueError for a non-positive lengthscale or nu, a dim below 1 or negative levels, and
    when the series is not positive on [0, pi] or too long to be summed (the heat kernel with l < 0.05).
    """

    lengthscale: Scalar
    nu: Scalar
    dim: int = 2
    levels: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "lengthscale", positive("lengthscale", self.lengthscale))
        object.__setattr__(self, "nu", positive("nu", self.nu, or_inf=True))
        if not (_is_integer(self.dim) and self.dim >= 1):
            raise ValueError(f"dim must be an integer of at least 1, got {self.dim!r}")
        if self.levels is not None and not (_is_integer(self.levels) and 0 <= self.levels <= MOST_LEVELS):
            raise ValueError(f"levels must be None or an integer in [0, {MOST_LEVELS}], got {self.levels!r}")
        _tables(self)

    @property
    def sphere_dim(self) -> int:
        """Dimension of the sphere."""
        return self.dim

    def log(self, r: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """log k(r) at angles r in [0, pi]; larger angles, from rounding, count as pi."""
        return with_derivative(r, self._log, self.dlog)

    def _log(self, r: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return _tables(self)[0](r.clamp(max=math.pi))

    def dlog(self, r: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """d/dr log k(r) at angles r in [0, pi], zero at both poles and beyond."""
        return _tables(self)[1](r.clamp(max=math.pi))


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


# Where the sums become too long: degrees, samples on [0, pi], and binary digits.
MOST_LEVELS, MOST_INTERVALS, MOST_BITS = 4096, 2**15, 3072
# Of the bits kept below the smallest value of k, half absorb rounding, half make it accurate.
GUARD_BITS = 128
# Cells of the cubics per interval between samples.
REFINEMENT = 8


@lru_cache(maxsize=64)
def _tables(kernel: SphericalMatern) -> tuple[CubicTable, CubicTable]:
    """Tables of log k and d log k / d theta on [0, pi].

    The latter is odd about 0 and about pi, so its samples on a uniform grid determine a sine series,
    which is differentiated and sampled more finely.
    """
    samples = _sample_dlog(kernel)
    spectrum = np.fft.rfft(np.concatenate([samples, -samples[-2:0:-1]]))
    n = np.arange(len(spectrum))
    dlog, curvature = _resample(spectrum), _resample(1j * n * spectrum)
    dlog[[0, -1]] = 0.0
    step = math.pi / (len(dlog) - 1)
    # Integrals of the cubics from theta = 0, so that small values are not differences of large ones.
    rises = step * (dlog[:-1] + dlog[1:]) / 2 - step**2 * np.diff(curvature) / 12
    log_k = np.concatenate([[0.0], np.cumsum(rises)])
    return CubicTable(0, step, log_k, dlog), CubicTable(0, step, dlog, curvature)


def _resample(spectrum: npt.NDArray[np.complex128]) -> Array:
    intervals = (len(spectrum) - 1) * REFINEMENT
    return np.fft.irfft(spectrum, 2 * intervals)[: intervals + 1] * REFINEMENT


def _sample_dlog(kernel: SphericalMatern) -> Array:
    """Samples of d log k / d theta at theta = pi j / intervals, with as many bits and intervals as needed."""
    levels, bits = _levels(kernel), _dynamic_range(kernel) + GUARD_BITS
    if bits > MOST_BITS:
        raise _unaffordable(kernel, levels)
    cosine = _cosine_series(kernel, levels, bits)
    intervals = 2 ** math.ceil(math.log2(max(1024, 2 * levels + 2, 4 * _dynamic_range(kernel))))
    while intervals <= MOST_INTERVALS:
        value, slope = value_and_slope(cosine, intervals, bits)
        least = min(value)
        if least < -(1 << GUARD_BITS // 2):
            raise _negative(kernel, levels)
        if least >= 1 << GUARD_BITS - 8:
            if _is_resolved(ratio := (slope / value).astype(np.float64)):
                return ratio
            intervals *= 2
        elif (bits := 2 * bits) <= MOST_BITS:  # too small for the present precision
            cosine = _cosine_series(kernel, levels, bits)
        else:
            break
    raise _unaffordable(kernel, levels)


def _is_resolved(samples: Array) -> bool:
    """Whether the sine series of the samples has decayed at its end."""
    sines = np.abs(np.fft.rfft(np.concatenate([samples, -samples[-2:0:-1]])))
    return bool(sines[-len(sines) // 8 :].max() <= 1e-11 * sines.max())


def _negative(kernel: SphericalMatern, levels: int) -> ValueError:
    return ValueError(
        f"{kernel} is negative somewhere on [0, pi] when summed to degree {levels}: "
        "give more levels (or None), or a larger lengthscale or nu"
    )


def _unaffordable(kernel: SphericalMatern, levels: int) -> ValueError:
    return ValueError(
        f"{kernel} cannot be shown positive on [0, pi] at an affordable cost (degree {levels}): "
        "give a larger lengthscale or nu, other levels, or take the Euclidean kernel of the same lengthscale"
    )


def _dynamic_range(kernel: SphericalMatern) -> int:
    """About -log2 of the smaller of k(pi)/k(0) and of the smallest float64 variation of k."""
    x = math.pi / kernel.lengthscale
    to_antipode = min(x**2 / 2, math.sqrt(2 * kernel.nu) * x)
    first_degree = -float(_log_weight(kernel, np.array([1.0]))[0])
    return math.ceil((to_antipode + min(first_degree, 750.0)) / math.log(2)) + kernel.dim


def _log_weight(kernel: SphericalMatern, n: Array) -> Array:
    """Log of a_n / a_0, in float64."""
    eigenvalue = n * (n + kernel.dim - 1) * kernel.lengthscale**2 / 2
    if math.isinf(kernel.nu):
        return -eigenvalue
    return -(kernel.nu + kernel.dim / 2) * np.log1p(eigenvalue / kernel.nu)


def _levels(kernel: SphericalMatern) -> int:
    """Degree beyond which the series is below 2^-48 of its smallest value, or the largest affordable one."""
    if kernel.levels is not None:
        return kernel.levels
    n, dim = np.arange(1, MOST_LEVELS + 1, dtype=np.float64), kernel.dim
    # N_n < (2 n + dim) (n + dim)^(dim - 1), and the derivative brings one more n.
    log_terms = _log_weight(kernel, n) + np.log(2 * n + dim) + (dim - 1) * np.log(n + dim) + np.log(n)
    negligible = np.flatnonzero(log_terms < -math.log(2) * (_dynamic_range(kernel) + 48))
    affordable = _fading_degree(kernel)
    if len(negligible) and negligible[0] < affordable:
        return int(n[negligible[0]])
    if math.isinf(kernel.nu):
        raise _unaffordable(kernel, MOST_LEVELS)
    return affordable


def _fading_degree(kernel: SphericalMatern) -> int:
    """Degree at which the weights are tapered to zero if levels is None."""
    if math.isinf(kernel.nu):
        return MOST_LEVELS
    return min(MOST_LEVELS, math.ceil(512 / min(kernel.lengthscale, 1)))


def _cosine_series(kernel: SphericalMatern, levels: int, bits: int) -> Integers:
    """e_m with k = e_0 + 2 sum_m e_m cos(m theta), in fixed point and scaled to a_0 = 1."""
    dim = kernel.dim
    with mpmath.workprec(bits + 32):
        half, order = mpmath.mpf(kernel.lengthscale) ** 2 / 2, mpmath.mpf(kernel.nu)
        eigenvalues = [half * n * (n + dim - 1) for n in range(levels + 1)]
        if math.isinf(kernel.nu):
            weights = [mpmath.exp(-x) for x in eigenvalues]
        else:
            weights = [(1 + x / order) ** -(order + mpmath.mpf(dim) / 2) for x in eigenvalues]
        if kernel.levels is None and levels == _fading_degree(kernel):
            weights = _faded(weights, dim, bits)
        if dim == 1:
            return to_fixed_point(weights, bits)
        # N_n / C_n(1) = (2 n + dim - 1) / (dim - 1)
        weights = [w * (2 * n + dim - 1) / (dim - 1) for n, w in enumerate(weights)]
        return gegenbauer_to_cosine(to_fixed_point(weights, bits), dim, bits)


def _faded(weights: list[mpmath.mpf], dim: int, bits: int) -> list[mpmath.mpf]:
    """Weights times exp(-(lambda_n / Lambda)^4), which reaches 2^-bits at the last degree L.

    A sharp cut-off would ring all over [0, pi], far above k(pi); here the ringing decays before k
    does. The power 4 was the best compromise: 1 smooths too much, 6 rings further.
    """
    last = len(weights) - 1
    scale = (bits * mpmath.log(2)) ** 0.25 / (last * (last + dim - 1))
    return [w * mpmath.exp(-((scale * n * (n + dim - 1)) ** 4)) for n, w in enumerate(weights)]
