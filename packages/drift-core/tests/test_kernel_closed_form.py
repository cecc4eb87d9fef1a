import math
import re
from collections.abc import Callable
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
import torch
from drift_core.kernel import Gaussian, Laplace, Matern, Mixture, RadialKernel, SphericalMatern
from hypothesis import given
from hypothesis import strategies as st

KERNELS: list[RadialKernel] = [
    Gaussian(0.7),
    Laplace(0.7),
    Matern(0.7, 0.3),
    Matern(0.7, 1.5),
    Matern(0.7, 2.0),
    Matern(0.7, 3.5),
    Matern(0.7, math.inf),
    SphericalMatern(0.7, math.inf),
    SphericalMatern(0.7, 1.5, dim=3, levels=60),
    Mixture((Gaussian(0.2), Laplace(1.0)), (0.25, 0.75)),
]
every_kernel = pytest.mark.parametrize("kernel", KERNELS, ids=repr)


@every_kernel
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 3, 4)])
def test_keeps_dtype_and_shape(kernel: RadialKernel, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    r = torch.full(shape, 0.3, dtype=dtype)
    for value in (kernel.log(r), kernel.dlog(r)):
        assert value.dtype == dtype
        assert value.shape == shape


@every_kernel
def test_is_one_at_zero_and_decreases(kernel: RadialKernel) -> None:
    r = torch.linspace(0, 3.1, 200, dtype=torch.float64)
    assert kernel.log(r)[0].abs() < 1e-15
    assert (kernel.log(r).diff() < 0).all()
    assert (kernel.dlog(r)[1:] < 0).all()


@every_kernel
def test_derivative_is_that_of_the_logarithm(kernel: RadialKernel) -> None:
    r = torch.linspace(0.01, 3.1, 97, dtype=torch.float64, requires_grad=True)
    (by_autograd,) = torch.autograd.grad(kernel.log(r).sum(), r)
    torch.testing.assert_close(by_autograd, kernel.dlog(r), rtol=1e-12, atol=1e-14)
    step = 1e-5
    with torch.no_grad():
        by_differences = (kernel.log(r + step) - kernel.log(r - step)) / (2 * step)
    torch.testing.assert_close(by_differences, kernel.dlog(r).detach(), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
    "kernel", [kernel for kernel in KERNELS if not isinstance(kernel, Laplace)], ids=repr
)
def test_derivative_is_itself_differentiable(kernel: RadialKernel) -> None:
    """The curl of a drift field needs the second derivative, directly or through log; Laplace's is 0."""
    r = torch.linspace(0.05, 3.0, 31, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(kernel.log(r).sum(), r, create_graph=True)
    (through_log,) = torch.autograd.grad(slope.sum(), r)
    (direct,) = torch.autograd.grad(kernel.dlog(r).sum(), r)
    step = 1e-5
    with torch.no_grad():
        by_differences = (kernel.dlog(r + step) - kernel.dlog(r - step)) / (2 * step)
    torch.testing.assert_close(through_log, direct, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(by_differences, direct, rtol=1e-4, atol=1e-6)


@every_kernel
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_is_finite_everywhere(kernel: RadialKernel, dtype: torch.dtype) -> None:
    far = [math.pi] if isinstance(kernel, SphericalMatern) else [7e2, 7e3, 1e6, 1e12]
    r = torch.tensor([0.0, 1e-38, 1e-12, 1.0, *far], dtype=dtype, requires_grad=True)
    for value in (kernel.log(r), kernel.dlog(r)):
        assert value.isfinite().all()
    assert torch.autograd.grad(kernel.log(r).sum(), r)[0].isfinite().all()


@every_kernel
def test_works_under_function_transforms_and_after_inference_mode(kernel: RadialKernel) -> None:
    r = torch.rand(3, 4)
    with torch.inference_mode():
        kernel.log(r)
    r.requires_grad_()
    kernel.log(r).sum().backward()
    slopes = torch.func.vmap(torch.func.grad(lambda x: kernel.log(x).sum()))(r.detach())
    torch.testing.assert_close(slopes, kernel.dlog(r.detach()))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_kernels_follow_their_argument_to_the_gpu() -> None:
    r = torch.linspace(0, 3, 1000)
    for kernel in KERNELS:
        torch.testing.assert_close(kernel.log(r.cuda()).cpu(), kernel.log(r), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(kernel.dlog(r.cuda()).cpu(), kernel.dlog(r), rtol=1e-5, atol=1e-6)


@every_kernel
def test_nan_stays_nan(kernel: RadialKernel) -> None:
    assert kernel.log(torch.tensor([math.nan, 0.5])).isnan().tolist() == [True, False]


@every_kernel
def test_equality_and_hash_follow_the_parameters(kernel: RadialKernel) -> None:
    assert kernel == eval(repr(kernel), {**globals(), "inf": math.inf})
    assert len({kernel, *KERNELS}) == len(KERNELS)


@given(r=st.floats(0, 1e3), lengthscale=st.floats(1e-2, 1e2))
def test_gaussian_and_laplace_are_their_formulas(r: float, lengthscale: float) -> None:
    x = torch.tensor(r, dtype=torch.float64)
    assert Gaussian(lengthscale).log(x).item() == pytest.approx(-((r / lengthscale) ** 2) / 2, rel=1e-13)
    assert Gaussian(lengthscale).dlog(x).item() == pytest.approx(-r / lengthscale**2, rel=1e-13)
    assert Laplace(lengthscale).log(x).item() == pytest.approx(-r / lengthscale, rel=1e-13)
    assert Laplace(lengthscale).dlog(x).item() == pytest.approx(-1 / lengthscale, rel=1e-13)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize(
    "family", [Gaussian, Laplace, partial(Matern, nu=1.5), partial(SphericalMatern, nu=1.5)]
)
def test_refuses_a_bad_lengthscale(family: type[Gaussian], bad: float) -> None:
    with pytest.raises(ValueError, match=f"lengthscale must be a positive finite number, got {bad}"):
        family(bad)


FAMILIES = [
    Gaussian,
    Laplace,
    partial(Matern, nu=1.5),
    partial(Matern, 0.7),
    partial(SphericalMatern, nu=1.5),
    partial(SphericalMatern, 0.7),
    lambda weight: Mixture((Gaussian(0.5), Laplace(0.3)), (0.5, weight)),
]


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.array, torch.tensor, Fraction])
@pytest.mark.parametrize("family", FAMILIES)
def test_scalars_of_any_kind_are_their_numbers(
    family: Callable[[object], RadialKernel], kind: Callable[[float], object]
) -> None:
    kernel = family(kind(0.75))
    assert kernel == family(0.75)
    assert hash(kernel) == hash(family(0.75))
    r = torch.linspace(0, 3, 7)
    assert torch.equal(kernel.log(r), family(0.75).log(r))


@pytest.mark.parametrize("kind", [np.array, torch.tensor])
def test_weights_of_a_mixture_may_be_an_array(kind: Callable[[list[float]], object]) -> None:
    parts = (Gaussian(0.5), Laplace(0.3))
    assert Mixture(parts, kind([0.25, 0.75])) == Mixture(parts, (0.25, 0.75))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "bad", [torch.tensor([0.5]), torch.tensor(0.5, requires_grad=True), np.array([0.5]), "0.5", None, 1j]
)
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_no_number_is_refused(family: Callable[[object], RadialKernel], bad: object) -> None:
    with pytest.raises(ValueError, match=r"positive.*, got"):
        family(bad)


@pytest.mark.parametrize("bad", [5e-324, 1e-200, 1e200])
@pytest.mark.parametrize("family", FAMILIES[:-1])
def test_a_scalar_whose_square_is_no_float_is_refused(
    family: Callable[[object], RadialKernel], bad: float
) -> None:
    with pytest.raises(ValueError, match=re.escape(f"must lie in [1e-150, 1e150], got {bad}")):
        family(bad)


def test_mixture_is_the_weighted_sum() -> None:
    r = torch.linspace(0, 2, 50, dtype=torch.float64)
    parts = ((Gaussian(0.5), 2.0), (Laplace(0.3), 0.5), (Matern(1.0, 2.5), 0.0))
    mixture = Mixture([k for k, _ in parts], [w for _, w in parts])
    total = sum(w * k.log(r).exp() for k, w in parts)
    slope = sum(w * k.log(r).exp() * k.dlog(r) for k, w in parts)
    torch.testing.assert_close(mixture.log(r), torch.log(torch.as_tensor(total)))
    torch.testing.assert_close(mixture.dlog(r), torch.as_tensor(slope) / total)


def test_mixture_survives_where_its_components_underflow() -> None:
    """At r = 1000 l every k_i is 0 in float32, and the widest kernel decides."""
    mixture = Mixture((Gaussian(0.1), Gaussian(1.0)), (0.5, 0.5))
    r = torch.tensor([100.0])
    torch.testing.assert_close(mixture.log(r), Gaussian(1.0).log(r) + math.log(0.5))
    torch.testing.assert_close(mixture.dlog(r), Gaussian(1.0).dlog(r))


@pytest.mark.parametrize(
    ("kernels", "weights", "message"),
    [
        ((), (), "at least one kernel"),
        ((Gaussian(1.0),), (0.5, 0.5), "got 2 for 1"),
        ((Gaussian(1.0),), (-0.5,), r"got \(-0.5,\)"),
        ((Gaussian(1.0),), (math.nan,), r"got \(nan,\)"),
        ((Gaussian(1.0),), (0.0,), "positive sum"),
        ((Gaussian(1.0),), (math.inf,), "finite"),
        ((SphericalMatern(1.0, 1.5), SphericalMatern(1.0, 1.5, dim=3)), (1, 1), r"S\^2 and S\^3"),
    ],
)
def test_mixture_refuses(kernels: tuple[Gaussian, ...], weights: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Mixture(kernels, weights)
