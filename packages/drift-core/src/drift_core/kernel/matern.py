"""Matern kernels of every order: closed forms for half-integers, tables for the others."""

import math
from dataclasses import dataclass
from functools import lru_cache

import mpmath
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from drift_core.arguments import Scalar, positive
from drift_core.kernel.closed_form import Gaussian, Laplace
from drift_core.kernel.interface import RadialKernel
from drift_core.kernel.table import Array, CubicTable, with_derivative

# A half-integer order costs nu - 1/2 passes over r; beyond this one the table is faster.
LARGEST_CLOSED_FORM = 25.5


@dataclass(frozen=True)
class Matern(RadialKernel):
    """The Matern kernel of smoothness nu, k(r) = 2^(1-nu)/Gamma(nu) a^nu K_nu(a), a = sqrt(2 nu) r / l.

    The lengthscale l is in units of the distance (Rasmussen and Williams 2006, eq. 4.14). Order 1/2 is
    `Laplace`, inf is `Gaussian`, half-integers up to 25.5 are closed forms, whose log k is as accurate as
    the rounding of r / l. Any other order is interpolated. For nu from 0.001 to 1e5 and all r >= 1e-30 l the
    relative error of log k and dlog is then below 1e-8 in float64; in float32 it is below 1e-5 for r / l in
    [1e-15, 1e15], and larger in proportion to |log(r / l)| elsewhere. For nu < 1/2 dlog diverges at r = 0;
    below r = 1e-30 l it is held at its value there.
    Raises ValueError unless lengthscale is positive and finite, and nu positive or inf.
    """

    lengthscale: Scalar
    nu: Scalar

    def __post_init__(self) -> None:
        object.__setattr__(self, "lengthscale", positive("lengthscale", self.lengthscale))
        object.__setattr__(self, "nu", positive("nu", self.nu, or_inf=True))

    def log(self, r: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """log k(r)."""
        return matern_form(self.lengthscale, self.nu).log(r)

    def dlog(self, r: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """d/dr log k(r) = -(sqrt(2 nu) / l) K_{nu-1}(a) / K_nu(a)."""
        return matern_form(self.lengthscale, self.nu).dlog(r)


@lru_cache(maxsize=256)
def matern_form(lengthscale: float, nu: float) -> RadialKernel:
    """The kernel that computes a Matern kernel: Gaussian, Laplace, a half-integer form or a table."""
    if math.isinf(nu):
        return Gaussian(lengthscale)
    if nu == 0.5:
        return Laplace(lengthscale)
    if (nu - 0.5).is_integer() and nu <= LARGEST_CLOSED_FORM:
        return HalfInteger(lengthscale, nu)
    return _Tabulated(lengthscale, nu)


@dataclass(frozen=True)
class HalfInteger(RadialKernel):
    """Orders 3/2, 5/2, ... by the recurrence of s_mu(a) = a K_{mu+1}(a) / K_mu(a), free of overflow.

    K_{mu+1} = K_{mu-1} + (2 mu/a) K_mu (DLMF 10.29.1) gives s_mu = 2 mu + a^2 / s_{mu-1}, s_{1/2} = 1 + a;
    then k_nu(a) = k_{1/2}(a) prod_{mu < nu} s_mu(a) / s_mu(0) and d log k_nu / da = -a / s_{nu-1}.
    """

    lengthscale: float
    nu: float

    def log(self, r: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """log k(r)."""
        a = r * self.rate
        s = a + 1
        total = torch.log1p(a) - a
        for mu in self._orders:
            excess = a * (a / s)
            total = total + torch.log1p(excess * (0.5 / mu))
            s = excess + 2 * mu
        return total

    def dlog(self, r: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """d/dr log k(r)."""
        a = r * self.rate
        s = a + 1
        for mu in self._orders:
            s = a * (a / s) + 2 * mu
        return a / s * -self.rate

    @property
    def rate(self) -> float:
        """a / r."""
        return math.sqrt(2 * self.nu) / self.lengthscale

    @property
    def _orders(self) -> list[float]:
        return [n + 0.5 for n in range(1, int(self.nu - 0.5))]


@dataclass(frozen=True)
class _Tabulated(RadialKernel):
    """Other orders, through log(-log k) and log(-d log k/dx) as functions of log x, x = r / l.

    Both are smooth and straight at either end (power laws), so few nodes cover all of [0, inf).
    """

    lengthscale: float
    nu: Scalar

    def log(self, r: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return with_derivative(r, self._log, self.dlog)

    def _log(self, r: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        x = r * (1 / self.lengthscale)
        log = -_tables(self.nu)[0](x.clamp(min=torch.finfo(r.dtype).tiny).log()).exp()
        # For nu < 1/2 the kernel is not flat enough for the smallest number to stand for 0.
        return log.masked_fill(r == 0, 0) if self.nu < 0.5 else log

    def dlog(self, r: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        # 1e-30 and not the smallest number: for nu < 1/2 dlog diverges at 0.
        least = torch.finfo(r.dtype).tiny if self.nu > 0.5 else 1e-30
        log_x = (r * (1 / self.lengthscale)).clamp(min=least).log()
        return _tables(self.nu)[1](log_x).exp() * (-1 / self.lengthscale)


# Nodes log x = FIRST STEP, ..., LAST STEP: x from 1e-30 to 1e13.
STEP, FIRST, LAST = 2**-6, -4422, 1916
LONGEST_RECURRENCE = 256


@lru_cache(maxsize=64)
def _tables(nu: float) -> tuple[CubicTable, CubicTable]:
    """Tables of log(-log k) and log(-d log k/dx) against t = log x."""
    t = STEP * np.arange(FIRST, LAST + 1)
    rate, elasticity = _decay(nu, np.exp(t))
    # -log k = int -dlog dx with Gauss-Legendre in every cell: all terms positive, nothing cancels.
    points, weights = np.polynomial.legendre.leggauss(3)
    inside = np.exp(t[:-1, None] + STEP * (points + 1) / 2)
    pieces = (_decay(nu, inside)[0] * inside) @ weights * (STEP / 2)
    minus_log = _minus_log(nu, t[0]) + np.concatenate([[0.0], np.cumsum(pieces)])
    slope = rate * np.exp(t) / minus_log
    slope[-1], elasticity[-1] = 1, 0  # the limits, to a relative nu log(a) / a
    return (
        CubicTable(FIRST, STEP, np.log(minus_log), slope),
        CubicTable(FIRST, STEP, np.log(rate), elasticity),
    )


def _decay(nu: float, x: Array) -> tuple[Array, Array]:
    """g = -d log k/dx and d log g/d log x, both from s = s_{nu-1}(a) and e = s - a.

    The latter is a difference of squares, a^2/s - s + 2 nu - 1; e avoids its cancellation for large a.
    """
    a = math.sqrt(2 * nu) * x
    orders = nu - np.arange(min(math.ceil(nu), LONGEST_RECURRENCE), 0, -1)
    s, e = _start(orders[0], a)
    for mu in orders[1:]:
        ratio = a / s
        s, e = a * ratio + 2 * mu, 2 * mu - ratio * e
    return math.sqrt(2 * nu) * a / s, 2 * nu - 1 - e * (1 + a / s)


def _start(mu: float, a: Array) -> tuple[Array, Array]:
    """s_mu(a) = a K_{mu+1}(a) / K_mu(a) and s_mu(a) - a: exact for -1 < mu <= 0, asymptotic above.

    The latter is used for nu > 256 only: S = mu + 1/2 + R with R^2 = (mu + 1/2)^2 + a^2 and its first
    correction in the equation a s' = s^2 - a^2 - 2 mu s. Each step of the recurrence shrinks the error by
    (a / s)^2.
    """
    half = mu + 0.5
    if mu > 0:
        root = np.hypot(half, a)
        e = half + half**2 / (root + a) - half * (half + root) / (2 * root**2)
        return np.asarray(a + e), np.asarray(e)
    from scipy import special  # takes most of a second to import

    near = np.minimum(a, 1e5)
    s = near * special.kve(mu + 1, near) / special.kve(-mu, near)
    e = np.where(a > near, half * (1 + (mu - 0.5) / (2 * a)), s - near)  # Hankel's expansion (DLMF 10.40.2)
    return np.where(a > near, a + e, s), e


def _minus_log(nu: float, t: float) -> float:
    """-log k at log x = t, for x so small that log k is one term of its series for nu >= 2."""
    if nu >= 2:  # a parabola up to a relative x^2 log x
        return nu / (2 * (nu - 1)) * math.exp(2 * t)
    with mpmath.workdps(100):  # 1 - k cancels in float64
        order = mpmath.mpf(nu)
        a = mpmath.sqrt(2 * order) * mpmath.exp(t)
        k = 2 ** (1 - order) / mpmath.gamma(order) * a**order * mpmath.besselk(order, a)
        return float(-mpmath.log(k))
