import math

import mpmath
import numpy as np
import pytest
import torch
from drift_core.kernel import Gaussian, Laplace, Matern
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

LENGTHSCALE = 0.7
RATIOS = 10 ** np.linspace(-6, 3, 19)


def matern(r: float, nu: float) -> tuple[float, float]:
    """log k and d/dr log k from the definition, in 60 digits."""
    with mpmath.workdps(60):
        order, x = mpmath.mpf(nu), mpmath.mpf(r) / LENGTHSCALE
        a = mpmath.sqrt(2 * order) * x
        bessel = mpmath.besselk(order, a)
        log = mpmath.log(2 ** (1 - order) / mpmath.gamma(order) * a**order * bessel)
        slope = -mpmath.sqrt(2 * order) / LENGTHSCALE * mpmath.besselk(order - 1, a) / bessel
        return float(log), float(slope)


@pytest.mark.parametrize("nu", [0.1, 0.3, 0.5, 1.0, 1.5, 1.7, 2.0, 2.5, 3.2, 7.5, 10.25, 25.5, 26.5])
def test_matches_the_bessel_function(nu: float) -> None:
    kernel = Matern(LENGTHSCALE, nu)
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 5e-6)):
        r = torch.tensor(LENGTHSCALE * RATIOS, dtype=dtype)
        log, dlog = np.array([matern(x, nu) for x in r.tolist()]).T
        # -a + log(1 + a) + ... loses digits of a tiny log k; none that matter to k.
        np.testing.assert_allclose(kernel.log(r).numpy(), log, rtol=tolerance, atol=tolerance / 50)
        np.testing.assert_allclose(kernel.dlog(r).numpy(), dlog, rtol=tolerance)


@pytest.mark.parametrize("nu", [0.1, 1.7, 2.0, 10.25])
def test_small_distances_keep_their_digits(nu: float) -> None:
    r = torch.tensor(LENGTHSCALE * 10 ** np.linspace(-6, -2, 9), dtype=torch.float64)
    log = np.array([matern(x, nu)[0] for x in r.tolist()])
    np.testing.assert_allclose(Matern(LENGTHSCALE, nu).log(r).numpy(), log, rtol=1e-9)


def exact(x: float, nu: float) -> tuple[float, float]:
    """log k and d log k/dx at l = 1: mpmath at the fractional order, then the recurrence (DLMF 10.29.1)."""
    with mpmath.workdps(200 if x < 1e-3 else 60):
        order, steps = mpmath.mpf(nu), int(nu)
        a = mpmath.sqrt(2 * order) * mpmath.mpf(x)
        low, high = (mpmath.besselk(order - steps - i, a) for i in (1, 0))
        for mu in range(steps):
            low, high = high, low + 2 * (order - steps + mu) / a * high
        log = (1 - order) * mpmath.log(2) - mpmath.loggamma(order) + order * mpmath.log(a) + mpmath.log(high)
        return float(log), float(-mpmath.sqrt(2 * order) * low / high)


ORDERS = [
    1e-3,
    0.01,
    0.1,
    0.3,
    0.49,
    0.51,
    0.7,
    0.999,
    1.0,
    1.2,
    2.0,
    2.2,
    3.7,
    10.3,
    26.5,
    255.9,
    257.3,
    5000.5,
]


@pytest.mark.parametrize("nu", ORDERS)
def test_holds_its_promise_from_the_smallest_to_the_largest_distances(nu: float) -> None:
    x = np.concatenate([10 ** np.linspace(-30, 30, 31), [1e-12, 8e4], 10 ** np.linspace(-2, 5, 15)])
    log, dlog = np.array([exact(each, nu) for each in x]).T
    kernel = Matern(1.0, nu)
    np.testing.assert_allclose(kernel.log(torch.tensor(x)).numpy(), log, rtol=1e-8)
    np.testing.assert_allclose(kernel.dlog(torch.tensor(x)).numpy(), dlog, rtol=1e-8)
    near = (x >= 1e-15) & (x <= 1e15)
    single = torch.tensor(x[near], dtype=torch.float32)
    np.testing.assert_allclose(kernel.log(single).numpy(), log[near], rtol=1e-5)
    np.testing.assert_allclose(kernel.dlog(single).numpy(), dlog[near], rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("nu", [1e-3, 0.01, 0.1, 0.49, 0.7, 2.2])
def test_is_one_at_zero_however_rough(nu: float, dtype: torch.dtype) -> None:
    """k(1e-30 l) is 0.75 for nu = 0.01."""
    zero = torch.zeros(3, dtype=dtype)
    assert Matern(0.7, nu).log(zero).abs().max() < 1e-30
    assert Matern(0.7, nu).dlog(zero).isfinite().all()


@settings(max_examples=30, deadline=None)
@given(nu=st.floats(0.05, 60), ratio=st.floats(1e-3, 10))
def test_matches_scipy_for_any_order(nu: float, ratio: float) -> None:
    a = math.sqrt(2 * nu) * ratio
    slope = -math.sqrt(2 * nu) * special.kve(nu - 1, a) / special.kve(nu, a)
    if math.isfinite(slope):
        r = torch.tensor(ratio, dtype=torch.float64)
        assert Matern(1.0, nu).dlog(r).item() == pytest.approx(slope, rel=1e-9)


@pytest.mark.parametrize("nu", [n + 0.5 for n in range(26)])
def test_half_integers_match_scipy(nu: float) -> None:
    ratio = np.linspace(0.5, 30, 40)
    a = math.sqrt(2 * nu) * ratio
    log = np.log(special.kve(nu, a)) - a + nu * np.log(a) + (1 - nu) * math.log(2) - math.lgamma(nu)
    np.testing.assert_allclose(Matern(1.0, nu).log(torch.tensor(ratio)).numpy(), log, rtol=1e-12, atol=1e-12)


def test_no_overflow_where_the_polynomial_overflows() -> None:
    """exp(-a) times a polynomial (Rasmussen and Williams, eq. 4.16) is 0 * inf at r = 1000 l in float32."""
    nu, r = 20.5, torch.tensor([1000.0])
    a, p = math.sqrt(2 * nu) * r, 20
    terms = [
        math.factorial(p + i) / (math.factorial(i) * math.factorial(p - i)) * (2 * a) ** (p - i)
        for i in range(p + 1)
    ]
    naive = torch.exp(-a) * (math.factorial(p) / math.factorial(2 * p)) * torch.stack(terms).sum(0)
    assert not naive.log().isfinite().all()
    kernel = Matern(1.0, nu)
    x = float(a)
    exact = math.log(special.kve(nu, x)) - x + nu * math.log(x) + (1 - nu) * math.log(2) - math.lgamma(nu)
    assert kernel.log(r).item() == pytest.approx(exact, rel=1e-6)
    slope = -math.sqrt(2 * nu) * special.kve(nu - 1, x) / special.kve(nu, x)
    assert kernel.dlog(r).item() == pytest.approx(slope, rel=1e-6)


def test_order_one_half_is_laplace_and_order_infinity_is_gaussian() -> None:
    r = torch.rand(100)
    for matern_kernel, kernel in ((Matern(0.3, 0.5), Laplace(0.3)), (Matern(0.3, math.inf), Gaussian(0.3))):
        assert torch.equal(matern_kernel.log(r), kernel.log(r))
        assert torch.equal(matern_kernel.dlog(r), kernel.dlog(r))


@pytest.mark.parametrize("nu", [1e2, 1e3 + 0.5, 1e4, 1e6])
def test_large_orders_tend_to_the_gaussian(nu: float) -> None:
    r = torch.linspace(0.1, 2, 20, dtype=torch.float64)
    torch.testing.assert_close(Matern(1.0, nu).log(r), Gaussian(1.0).log(r), rtol=2 / nu, atol=0)
    torch.testing.assert_close(Matern(1.0, nu).dlog(r), Gaussian(1.0).dlog(r), rtol=5 / nu, atol=0)


def test_continuous_in_the_order_where_the_method_changes() -> None:
    r = torch.logspace(-3, 2, 50, dtype=torch.float64)
    for nu in (0.5, 1.5, 2.0, 3.5, 25.5):
        for step in (-1e-7, 1e-7):
            torch.testing.assert_close(
                Matern(1.0, nu + step).log(r), Matern(1.0, nu).log(r), rtol=1e-5, atol=0
            )


def test_laplace_displacement_is_the_gradient_of_a_matern_three_halves() -> None:
    """k_laplace(r) r = -l^2 k'(r) for the Matern-3/2 kernel k of lengthscale sqrt(3) l."""
    length = 0.4
    r = torch.linspace(0, 5, 100, dtype=torch.float64)
    kernel = Matern(math.sqrt(3) * length, 1.5)
    displacement = Laplace(length).log(r).exp() * r
    gradient = -(length**2) * kernel.log(r).exp() * kernel.dlog(r)
    torch.testing.assert_close(displacement, gradient, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("bad", [0.0, -1.5, math.nan])
def test_refuses_a_bad_order(bad: float) -> None:
    with pytest.raises(ValueError, match=f"nu must be a positive number or inf, got {bad}"):
        Matern(1.0, bad)
