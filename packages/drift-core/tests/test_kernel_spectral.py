import math
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from drift_core.kernel import Gaussian, SphericalMatern

THETA = np.concatenate(
    [10 ** np.linspace(-3, -1, 9), np.linspace(0.2, 3.0, 15), math.pi - 10 ** np.linspace(-3, -1, 9)]
)


def series(kernel: SphericalMatern, theta: float, degree: int) -> tuple[float, float]:
    """log k and d log k / d theta from the definition: Legendre's recurrence in 80 digits, on S^2."""
    with mpmath.workdps(80):
        length, nu = mpmath.mpf(kernel.lengthscale), mpmath.mpf(kernel.nu)
        x, sin = mpmath.cos(mpmath.mpf(theta)), mpmath.sin(mpmath.mpf(theta))
        previous, p, origin, value, slope = mpmath.mpf(0), mpmath.mpf(1), 0, 0, 0
        for n in range(degree + 1):
            lam = mpmath.mpf(n * (n + 1))
            weight = (
                mpmath.exp(-(length**2) * lam / 2)
                if nu == mpmath.inf
                else (2 * nu / length**2 + lam) ** -(nu + 1)
            )
            weight *= 2 * n + 1
            origin, value = origin + weight, value + weight * p
            slope += weight * n * (x * p - previous) / sin  # d P_n(cos t) / dt = n (x P_n - P_{n-1}) / sin t
            previous, p = p, ((2 * n + 1) * x * p - n * previous) / (n + 1)
        return float(mpmath.log(value / origin)), float(slope / value)


def assert_matches(kernel: SphericalMatern, oracle: Callable[[float], tuple[float, float]]) -> None:
    for dtype, tolerance in ((torch.float64, 1e-7), (torch.float32, 1e-5)):
        # Near pi dlog is proportional to pi - theta, which float32 only knows to 2e-7.
        r = torch.tensor(THETA if dtype == torch.float64 else THETA[THETA < 3.01], dtype=dtype)
        log, dlog = np.array([oracle(theta) for theta in r.tolist()]).T
        np.testing.assert_allclose(kernel.log(r).numpy(), log, rtol=tolerance, atol=1e-11)
        np.testing.assert_allclose(kernel.dlog(r).numpy(), dlog, rtol=tolerance)


@pytest.mark.parametrize(
    ("lengthscale", "nu", "levels", "degree"),
    [
        (0.2, math.inf, None, 140),
        (0.5, math.inf, None, 60),
        (2.0, math.inf, None, 20),
        (0.5, math.inf, 40, 40),
        (0.5, 1.5, 60, 60),
        (1.0, 0.5, 80, 80),
        (0.7, 3.3, 120, 120),
    ],
)
def test_matches_the_series_on_the_sphere(
    lengthscale: float, nu: float, levels: int | None, degree: int
) -> None:
    kernel = SphericalMatern(lengthscale, nu, levels=levels)
    assert_matches(kernel, lambda theta: series(kernel, theta, degree))


@pytest.mark.parametrize(("lengthscale", "nu", "levels"), [(0.3, 1.5, 200), (1.0, 0.5, 300), (10.0, 2.5, 60)])
def test_tables_are_as_accurate_as_they_say_near_both_poles(
    lengthscale: float, nu: float, levels: int
) -> None:
    kernel = SphericalMatern(lengthscale, nu, levels=levels)
    near = 10 ** np.linspace(-6, -0.5, 23)
    theta = np.concatenate([near, math.pi - near])
    log, dlog = np.array([series(kernel, each, levels) for each in theta]).T
    np.testing.assert_allclose(kernel.log(torch.tensor(theta)).numpy(), log, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(kernel.dlog(torch.tensor(theta)).numpy(), dlog, rtol=1e-6)


def wrapped(terms: Callable[[mpmath.mpf], mpmath.mpf], theta: mpmath.mpf) -> mpmath.mpf:
    return sum(terms(theta + 2 * mpmath.pi * j) for j in range(-6, 7))


@pytest.mark.parametrize("lengthscale", [0.1, 0.2, 1.5])
@pytest.mark.parametrize("dim", [1, 3])
def test_heat_kernels_match_their_wrapped_gaussians(lengthscale: float, dim: int) -> None:
    """Poisson summation: S^1 is a wrapped Gaussian g, and S^3 = SU(2) has k ~ -g'(theta) / sin(theta)."""
    length = mpmath.mpf(lengthscale)

    def log_k(theta: mpmath.mpf) -> mpmath.mpf:
        if dim == 1:
            return mpmath.log(wrapped(lambda t: mpmath.exp(-((t / length) ** 2) / 2), theta))
        return mpmath.log(
            wrapped(lambda t: t * mpmath.exp(-((t / length) ** 2) / 2), theta) / mpmath.sin(theta)
        )

    def oracle(theta: float) -> tuple[float, float]:
        with mpmath.workdps(60):
            t, h = mpmath.mpf(theta), mpmath.mpf(10) ** -20
            value = log_k(t) - log_k(h)
            return float(value), float((log_k(t + h) - log_k(t - h)) / (2 * h))

    assert_matches(SphericalMatern(lengthscale, math.inf, dim=dim), oracle)


@pytest.mark.parametrize("lengthscale", [0.1, 0.3, 2.0])
@pytest.mark.parametrize("nu", [0.5, 1.5])
def test_whole_rough_series_match_their_closed_forms_on_the_circle(lengthscale: float, nu: float) -> None:
    """With b^2 = 2 nu / l^2, nu = 1/2 sums to f = cosh(b (pi - t)) / (b sinh(b pi)), 3/2 to -df/d(b^2)."""
    b, last = math.sqrt(2 * nu) / lengthscale, min(4096, 512 / min(lengthscale, 1))
    theta = np.linspace(80 / last, 3.1, 400)
    s = math.pi - theta
    if nu == 0.5:
        value, slope = np.cosh(b * s), -b * np.sinh(b * s)
    else:
        c = math.pi / math.tanh(b * math.pi) + 1 / b
        value = c * np.cosh(b * s) - s * np.sinh(b * s)
        slope = (1 - c * b) * np.sinh(b * s) + b * s * np.cosh(b * s)
    dlog = SphericalMatern(lengthscale, nu, dim=1).dlog(torch.tensor(theta)).numpy()
    np.testing.assert_allclose(dlog, slope / value, rtol=1e-5)


@lru_cache
def karhunen_loeve(dim: int, levels: int) -> Any:
    """The Matern kernels of geometric-kernels on S^dim, which take seconds to make."""
    from geometric_kernels.kernels import MaternKarhunenLoeveKernel
    from geometric_kernels.spaces import Circle, Hypersphere

    return MaternKarhunenLoeveKernel(Circle() if dim == 1 else Hypersphere(dim), levels + 1)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ImportWarning", "ignore::RuntimeWarning")
@pytest.mark.parametrize("dim", [1, 2, 3, 6])
@pytest.mark.parametrize("nu", [1.5, 2.5, math.inf])
def test_matches_geometric_kernels(dim: int, nu: float) -> None:
    levels, lengthscale, theta = 24, 0.6, np.linspace(0, math.pi, 30)
    reference = karhunen_loeve(dim, levels)
    params = {"nu": np.array([nu]), "lengthscale": np.array([lengthscale])}
    points = theta[:, None]
    if dim > 1:
        points = np.zeros((len(theta), dim + 1))
        points[:, 0], points[:, 1] = np.cos(theta), np.sin(theta)
    expected = reference.K(params, points, points[:1])[:, 0]
    kernel = SphericalMatern(lengthscale, nu, dim=dim, levels=levels)
    np.testing.assert_allclose(
        kernel.log(torch.tensor(theta)).exp().numpy(), expected / expected[0], atol=1e-9
    )


def test_profile_is_even_about_both_poles() -> None:
    for dtype in (torch.float32, torch.float64):
        poles = torch.tensor([0.0, math.pi], dtype=dtype)
        assert SphericalMatern(0.3, 2.5).dlog(poles).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("nu", [0.5, 2.5, math.inf])
@pytest.mark.parametrize("dim", [1, 2, 5])
def test_an_angle_beyond_pi_is_pi(dim: int, nu: float, dtype: torch.dtype) -> None:
    """Rounding makes some; a slope that went on beyond would repel."""
    kernel = SphericalMatern(0.5, nu, dim=dim)
    r = torch.tensor([math.pi, math.pi + 1e-6, math.pi * math.sqrt(2), 1e9, math.inf], dtype=dtype)
    r.requires_grad_()
    log = kernel.log(r)
    assert kernel.dlog(r).tolist() == [0.0] * 5
    assert log.tolist() == [log[0].item()] * 5
    assert torch.autograd.grad(log.sum(), r)[0].tolist() == [0.0] * 5
    assert kernel.log(torch.tensor(math.nan, dtype=dtype)).isnan()
    assert kernel.dlog(torch.tensor(math.nan, dtype=dtype)).isnan()


def test_local_limit_is_the_gaussian() -> None:
    r = torch.linspace(0.01, 0.2, 20, dtype=torch.float64)
    torch.testing.assert_close(
        SphericalMatern(0.1, math.inf).dlog(r), Gaussian(0.1).dlog(r), rtol=5e-3, atol=0
    )


def test_float32_profile_is_right_where_monomials_are_not() -> None:
    """Horner's rule in monomials loses P_24 altogether in float32; the tabulated profile does not."""
    coefficients = np.polynomial.legendre.leg2poly([0.0] * 24 + [1.0]).astype(np.float32)
    theta = torch.linspace(0, math.pi, 2000)
    x = theta.cos().numpy()
    horner = np.zeros_like(x)
    for c in coefficients[::-1]:
        horner = horner * x + c
    exact = np.polynomial.legendre.legval(x.astype(np.float64), [0.0] * 24 + [1.0])
    assert np.abs(horner - exact).max() > 1
    kernel = SphericalMatern(0.5, math.inf, levels=24)
    double = kernel.log(theta.double())
    torch.testing.assert_close(kernel.log(theta).double(), double, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("lengthscale", "nu", "levels"), [(0.1, math.inf, 10), (0.2, 2.5, 24), (0.1, 0.5, 100)]
)
def test_refuses_a_series_that_is_negative_somewhere(lengthscale: float, nu: float, levels: int) -> None:
    message = f"lengthscale={lengthscale}, nu={nu}, dim=2, levels={levels}.*negative.*more levels"
    with pytest.raises(ValueError, match=message):
        SphericalMatern(lengthscale, nu, levels=levels)


def test_refuses_what_it_cannot_afford_at_once() -> None:
    start = time.process_time()
    with pytest.raises(ValueError, match=r"affordable.*larger lengthscale"):
        SphericalMatern(0.01, math.inf)
    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"nu": -1.0}, "nu must be a positive number or inf, got -1.0"),
        ({"dim": 0}, "dim must be an integer of at least 1, got 0"),
        ({"dim": True}, "dim must be an integer of at least 1, got True"),
        ({"levels": -1}, r"levels must be None or an integer in \[0, 4096\], got -1"),
        ({"levels": True}, r"levels must be None or an integer in \[0, 4096\], got True"),
        ({"levels": 5000}, r"levels must be None or an integer in \[0, 4096\], got 5000"),
    ],
)
def test_refuses_bad_arguments(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SphericalMatern(**{"lengthscale": 1.0, "nu": 1.5, **arguments})  # type: ignore[arg-type]


def test_degree_zero_is_the_constant_kernel() -> None:
    r = torch.linspace(0, 3, 5)
    assert not SphericalMatern(1.0, 1.5, levels=0).log(r).any()
    assert not SphericalMatern(1.0, 1.5, levels=0).dlog(r).any()
