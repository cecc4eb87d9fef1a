"""Matern kernels of every order: closed forms for half-integers, a table for the others."""

import math
from dataclasses import dataclass
from functools import lru_cache

import mpmath
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from drift_core.kernel.arguments import Scalar, positive
from drift_core.kernel.closed_form import Gaussian, Laplace
from drift_core.kernel.interface import RadialKernel
from drift_core.kernel.table import Array, CubicTable, with_derivative

# A half-integer order costs nu - 1/2 passes over r; beyond this one the table is faster.
LARGEST_CLOSED_FORM = 25.5


@dataclass(frozen=True)
class Matern(RadialKernel):
    """The Matern kernel of smoothness nu, k(r) = 2^(1-nu)/Gamma(nu) a^nu K_nu(a), a = sqrt(2 nu) r / l.

    The lengthscale l is in units of the distance (Rasmussen and Williams 2006, eq. 4.14). Order 1/2 is
    `Laplace`, inf is `Gaussian`, half-integers up to 25.5 are closed forms, and any other order is
    interpolated with a relative error below 1e-8 (float64) in log k and dlog. For nu < 1/2 dlog
    diverges at r = 0; below r = 1e-30 l it is held at its value there.
    Raises ValueError unless lengthscale is positive and finite, and nu positive or inf.
    """

    lengthscale: Scalar
    nu: Scalar

    def __post_init__(self) -> None:
        object.__setattr__(self, "lengthscale", positive("lengthscale", self.lengthscale))
        object.__setattr__(self, "nu", positive("nu", self.nu, or_inf=True))

    def log(self, r: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """log k(r)."""
        return _form(self.lengthscale, self.nu).log(r)

    def dlog(self, r: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """d/dr log k(r) = -(sqrt(2 nu) / l) K_{nu-1}(a) / K_nu(a)."""
        return _form(self.lengthscale, self.nu).dlog(r)


@lru_cache(maxsize=256)
def _form(lengthscale: float, nu: float) -> RadialKernel:
    if math.isinf(nu):
        return Gaussian(lengthscale)
    if nu == 0.5:
        return Laplace(lengthscale)
    if (nu - 0.5).is_integer() and nu <= LARGEST_CLOSED_FORM:
        return _HalfInteger(lengthscale, nu)
    return _Tabulated(lengthscale, nu)


@dataclass(frozen=True)
class _HalfInteger(RadialKernel):
    """Orders 3/2, 5/2, ... by the recurrence of s_mu(a) = a K_{mu+1}(a) / K_mu(a), free of overflow.

    K_{mu+1} = K_{mu-1} + (2 mu/a) K_mu (DLMF 10.29.1) gives s_mu = 2 mu + a^2 / s_{mu-1}, s_{1/2} = 1 + a;
    then k_nu(a) = k_{1/2}(a) prod_{mu < nu} s_mu(a) / s_mu(0) and d log k_nu / da = -a / s_{nu-1}.
    """

    lengthscale: float
    nu: float

    def log(self, r: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        a = r * self._rate
        s = a + 1
        total = torch.log1p(a) - a
        for mu in self._orders:
            excess = a * (a / s)
            total = total + torch.log1p(excess * (0.5 / mu))
            s = excess + 2 * mu
        return total

    def dlog(self, r: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        a = r * self._rate
        s = a + 1
        for mu in self._orders:
            s = a * (a / s) + 2 * mu
        return a / s * -self._rate

    @property
    def _rate(self) -> float:
        return math.sqrt(2 * self.nu) / self.lengthscale

    @property
    def _orders(self) -> list[float]:
        return [n + 0.5 for n in range(1, int(self.nu - 0.5))]


@dataclass(frozen=True)
class _Tabulated(RadialKernel):
    """Other orders, through log(-log k) and log(-d log k/dx) as functions of log x, x = r / l.

    Both are smooth and straight at either end (power laws), so few nodes serve all of [0, inf).
    """

    lengthscale: float
    nu: Scalar

    def log(self, r: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return with_derivative(r, self._log, self.dlog)

    def _log(self, r: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return -_tables(self.nu)[0](self._log_x(r)).exp()

    def dlog(self, r: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return _tables(self.nu)[1](self._log_x(r)).exp() * (-1 / self.lengthscale)

    def _log_x(self, r: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        x = r * (1 / self.lengthscale)
        # 1e-30 and not the smallest number: for nu < 1/2 dlog grows without bound towards 0.
        return x.clamp(min=torch.finfo(r.dtype).tiny if self.nu > 0.5 else 1e-30).log()


FIRST, LAST, CELLS = math.log(1e-8), math.log(1e4), 2048
LONGEST_RECURRENCE = 4096


@lru_cache(maxsize=64)
def _tables(nu: float) -> tuple[CubicTable, CubicTable]:
    """Tables of log(-log k) and log(-d log k/dx) against t = log x."""
    step = (LAST - FIRST) / CELLS
    t = FIRST + step * np.arange(CELLS + 1)
    rate, elasticity = _decay(nu, np.exp(t))
    # -log k = int -dlog dx with Gauss-Legendre in every cell: all terms positive, nothing cancels.
    points, weights = np.polynomial.legendre.leggauss(6)
    inside = np.exp(t[:-1, None] + step * (points + 1) / 2)
    pieces = (_decay(nu, inside)[0] * inside) @ weights * (step / 2)
    minus_log = _minus_log_at_first(nu, rate[0]) + np.concatenate([[0.0], np.cumsum(pieces)])
    return (
        CubicTable(FIRST, step, np.log(minus_log), rate * np.exp(t) / minus_log),
        CubicTable(FIRST, step, np.log(rate), elasticity),
    )


def _decay(nu: float, x: Array) -> tuple[Array, Array]:
    """g = -d log k/dx and d log g/d log x, both from s_{nu-1}."""
    a = math.sqrt(2 * nu) * x
    orders = nu - np.arange(min(math.ceil(nu), LONGEST_RECURRENCE), 0, -1)
    s = _start(orders[0], a)
    for mu in orders[1:]:
        s = a * a / s + 2 * mu
    return math.sqrt(2 * nu) * a / s, a * a / s - s + 2 * nu - 1


def _start(mu: float, a: Array) -> Array:
    """s_mu(a) = a K_{mu+1}(a) / K_mu(a): exact for -1 < mu <= 0, its leading uniform asymptotics above.

    The latter serve nu > 4096 only, where each step of the recurrence shrinks the error by (a / s)^2.
    """
    if mu <= 0:
        return np.asarray(a * _scaled_bessel_k(mu + 1, a) / _scaled_bessel_k(-mu, a))
    return np.asarray(mu + 0.5 + np.sqrt((mu + 0.5) ** 2 + a * a))


def _scaled_bessel_k(order: float, a: Array) -> Array:
    """exp(a) K_order(a) = int_0^inf exp(-a (cosh u - 1)) cosh(order u) du (DLMF 10.32.9), 0 <= order <= 1.

    The integrand is analytic and even, so the trapezoidal rule converges exponentially: 128 points
    over the range where it exceeds exp(-60) reach rounding for every a.
    """
    end = np.arccosh(1 + 60 / a)
    step = end / 128
    total = np.full_like(a, 0.5)
    for i in range(1, 129):
        u = i * step
        total += np.exp(-2 * a * np.sinh(u / 2) ** 2) * np.cosh(order * u)
    return np.asarray(total * step)


def _minus_log_at_first(nu: float, rate: float) -> float:
    """-log k at x = exp(FIRST), given its derivative there."""
    if nu >= 2:  # a parabola up to a relative x^2 log x
        return rate * math.exp(FIRST) / 2
    with mpmath.workdps(60):  # 1 - k is lost in float64
        order = mpmath.mpf(nu)
        a = mpmath.sqrt(2 * order) * mpmath.exp(FIRST)
        k = 2 ** (1 - order) / mpmath.gamma(order) * a**order * mpmath.besselk(order, a)
        return float(-mpmath.log(k))
