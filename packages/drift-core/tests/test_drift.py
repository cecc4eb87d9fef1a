"""The drift field against the facts of the method, and the loss against its closed form."""

import math

import numpy as np
import pytest
import torch
from drift_core import (
    Euclidean,
    Gaussian,
    Laplace,
    Matern,
    Mixture,
    Power,
    Sphere,
    SphericalMatern,
    cap_step,
    drift,
    drift_loss,
    smoothed_score,
)
from torch import Tensor


def gaussian_cloud(mean: Tensor, scale: float, n: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return mean + scale * torch.randn(n, len(mean), generator=generator, dtype=torch.float64)


def jacobian(field, x: Tensor) -> Tensor:
    return torch.autograd.functional.jacobian(lambda t: field(t[None])[0], x)


def test_gaussian_displacement_is_lengthscale_squared_times_the_gradient(manifold, cloud):
    x, data, model = cloud(8, 0), cloud(20, 1), cloud(15, 2)
    gradient = drift(manifold, Gaussian(0.7), x, data, model)
    displacement = drift(manifold, Gaussian(0.7), x, data, model, direction="displacement")
    torch.testing.assert_close(displacement, 0.49 * gradient, rtol=1e-9, atol=1e-9)
    laplace = drift(manifold, Laplace(0.7), x, data, model)
    other = drift(manifold, Laplace(0.7), x, data, model, direction="displacement")
    assert not torch.allclose(other, 0.49 * laplace, rtol=0.01)


def test_field_between_gaussians_has_its_closed_form():
    m1, m2, s1, s2, scale = (
        torch.tensor([1.0, 0.0]).double(),
        torch.tensor([-0.5, 0.5]).double(),
        0.6,
        0.9,
        0.5,
    )
    data, model = gaussian_cloud(m1, s1, 200_000, 0), gaussian_cloud(m2, s2, 200_000, 1)
    x = torch.tensor([[0.0, 0.0], [1.0, 1.0], [-0.5, 0.2]]).double()
    expected = -(x - m1) / (s1**2 + scale**2) + (x - m2) / (s2**2 + scale**2)
    # 200,000 points estimate each score to about 0.01.
    torch.testing.assert_close(
        drift(Euclidean(), Gaussian(scale), x, data, model), expected, rtol=0, atol=0.03
    )


@pytest.mark.parametrize("kernel", [Laplace(0.8), Matern(0.8, 1.5), Gaussian(0.8)], ids=repr)
def test_kernel_gradient_field_is_curl_free_and_displacement_is_not(kernel):
    data = gaussian_cloud(torch.zeros(3).double(), 1.0, 12, 0)
    model = gaussian_cloud(torch.ones(3).double(), 1.0, 12, 1)
    x = torch.tensor([0.2, -0.3, 0.5], dtype=torch.float64)
    for direction in ("gradient", "displacement"):
        j = jacobian(lambda t, d=direction: drift(Euclidean(), kernel, t, data, model, direction=d), x)
        curl = float((j - j.T).abs().max() / j.abs().max())
        if direction == "gradient" or isinstance(kernel, Gaussian):
            assert curl < 1e-9
        else:
            assert curl > 1e-3


def test_laplace_displacement_numerator_is_a_matern_gradient():
    scale = 0.4
    x = gaussian_cloud(torch.zeros(3).double(), 1.0, 6, 0)
    y = gaussian_cloud(torch.zeros(3).double(), 1.0, 30, 1)
    laplace = smoothed_score(Euclidean(), Laplace(scale), x, y, direction="displacement")
    numerator = laplace.log_density.exp()[:, None] * laplace.gradient
    matern = smoothed_score(Euclidean(), Matern(math.sqrt(3) * scale, 1.5), x, y)
    gradient = matern.log_density.exp()[:, None] * matern.gradient
    torch.testing.assert_close(numerator, scale**2 * gradient, rtol=1e-9, atol=1e-12)


def test_unequal_coefficients_do_not_vanish_at_equality(sphere_cloud):
    x, y = sphere_cloud(20, 0), sphere_cloud(100, 1)
    score = smoothed_score(Sphere(), Laplace(0.5), x, y).gradient
    assert bool((drift(Sphere(), Laplace(0.5), x, y, y) == 0).all())
    assert float((1.1 * score - 0.9 * score).norm(dim=-1).min()) > 1e-3


def harmonic_cloud(degree: int) -> tuple[Tensor, Tensor]:
    """Points of an exact quadrature on S^2, with uniform weights, and perturbed by a zonal harmonic."""
    nodes, weights = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(40))
    phi = torch.arange(80, dtype=torch.float64) * (2 * math.pi / 80)
    z = nodes[:, None].expand(40, 80).reshape(-1)
    p = phi.expand(40, 80).reshape(-1)
    s = (1 - z * z).sqrt()
    points = torch.stack([s * p.cos(), s * p.sin(), z], dim=-1)
    base = weights[:, None].expand(40, 80).reshape(-1)
    previous, current = torch.ones_like(z), z
    for k in range(1, degree):
        previous, current = current, ((2 * k + 1) * z * current - k * previous) / (k + 1)
    return points, torch.stack([base.log(), (base * (1 + 0.9 * current)).log()])


@pytest.mark.parametrize("degree", [2, 5, 9, 12])
def test_truncated_kernels_are_blind_and_characteristic_kernels_are_not(degree, sphere_cloud):
    points, (uniform, perturbed) = harmonic_cloud(degree)
    x = sphere_cloud(30, 0)

    def field(kernel):
        return (
            drift(Sphere(), kernel, x, points, points, data_log_weight=uniform, model_log_weight=perturbed)
            .norm(dim=-1)
            .max()
        )

    truncated = SphericalMatern(0.8, 2.5, levels=8)
    assert (float(field(truncated)) < 1e-9) == (degree > 8)
    for kernel in (Laplace(0.5), SphericalMatern(0.5, 1.5), SphericalMatern(0.3, math.inf)):
        assert float(field(kernel)) > 1e-4


def test_mixtures_are_mixtures_of_scores(sphere_cloud):
    x, y = sphere_cloud(6, 0), sphere_cloud(30, 1)
    parts = [Laplace(0.3), Gaussian(0.8)]
    mixed = smoothed_score(Sphere(), Mixture(parts, [0.25, 2.0]), x, y)
    one, two = (smoothed_score(Sphere(), k, x, y) for k in parts)
    a, b = 0.25 * one.log_density.exp(), 2.0 * two.log_density.exp()
    expected = (a[:, None] * one.gradient + b[:, None] * two.gradient) / (a + b)[:, None]
    torch.testing.assert_close(mixed.gradient, expected)


@pytest.mark.parametrize("step_size", [0.01, 0.3])
def test_loss_is_the_squared_step_and_its_gradient_the_step(manifold, cloud, step_size):
    x, y = cloud(10, 0), cloud(10, 1)
    v = 0.5 * manifold.logmap(x, y)
    x.requires_grad_()
    loss = drift_loss(manifold, x, v, step_size=step_size)
    length = manifold.inner(x, v, v).mean()
    torch.testing.assert_close(loss, step_size**2 * length, rtol=1e-6, atol=1e-12)
    (gradient,) = torch.autograd.grad(loss, x)
    # Against directional derivatives, for the metric of the manifold.
    u = manifold.logmap(x.detach(), y.roll(1, 0))
    with torch.no_grad():
        target = manifold.expmap(x, step_size * v)
        ends = [manifold.dist(manifold.expmap(x, s * 1e-5 * u), target).square().mean() for s in (1, -1)]
    assert float((gradient * u).sum()) == pytest.approx(float(ends[0] - ends[1]) / 2e-5, rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("step_size", [1e-12, 1e-6, 0.01, 0.3])
def test_the_gradient_of_the_loss_is_the_step_down_to_the_smallest(manifold, cloud, step_size, dtype):
    x, y = cloud(10, 0, dtype), cloud(10, 1, dtype)
    v = manifold.proju(x, manifold.logmap(x, y))
    v = v / manifold.norm(x, v).reshape(-1, *(1,) * manifold.point_ndim)
    x.requires_grad_()
    loss = drift_loss(manifold, x, v, step_size=step_size)
    assert float(loss.detach()) == pytest.approx(step_size**2, rel=2e-5)
    (gradient,) = torch.autograd.grad(loss, x)
    u = manifold.proju(x, cloud(10, 2, dtype)).detach()
    axes = tuple(range(1, x.ndim))
    expected = -2 * step_size / 10 * manifold.inner(x.detach(), v, u)
    scale = step_size * manifold.norm(x, u).detach()
    eps = 1e3 * torch.finfo(dtype).eps
    assert bool((((gradient * u).sum(axes) - expected).abs() <= eps * scale).all())


def test_no_gradient_flows_through_the_drift(sphere_cloud):
    x, v = sphere_cloud(5, 0), torch.zeros(5, 3, dtype=torch.float64, requires_grad=True)
    x.requires_grad_()
    loss = drift_loss(Sphere(), x, v)
    assert float(loss.detach()) == 0
    gradients = torch.autograd.grad(loss, [x, v], allow_unused=True)
    assert bool((gradients[0] == 0).all())
    assert gradients[1] is None


def test_steps_are_capped_per_point(manifold, cloud):
    x = cloud(10, 0)
    v = manifold.logmap(x, cloud(10, 1))
    length = manifold.norm(x, v)
    cap = min(3.0, float(length.median()))
    step, clipped = cap_step(manifold, x, v, cap)
    torch.testing.assert_close(manifold.norm(x, step), length.clamp_max(cap), rtol=1e-9, atol=1e-9)
    assert bool((clipped == (length > cap)).all())


def test_steps_never_wrap_around_the_sphere(sphere_cloud):
    x = sphere_cloud(10, 0)
    v = 100 * Sphere().logmap(x, sphere_cloud(10, 1))
    loss = drift_loss(Sphere(), x, v)
    torch.testing.assert_close(loss, torch.tensor((0.99 * math.pi) ** 2).double())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"v": torch.ones(4, 3)}, r"one shape, got \[5, 3\] and \[4, 3\]"),
        (
            {"x": torch.zeros(0, 3), "v": torch.zeros(0, 3)},
            r"at least one sample, got samples of shape \[0, 3\]",
        ),
        ({"x": torch.zeros(5, 3).bfloat16(), "v": torch.zeros(5, 3).bfloat16()}, "must be float32 or both"),
        ({"step_size": -1.0}, "step_size must be positive, got -1.0"),
        ({"max_step": 0.0}, r"must lie in \(0, 3.142\) on Sphere\(\), got 0.0"),
        ({"max_step": 4.0}, r"must lie in \(0, 3.142\) on Sphere\(\), got 4.0"),
    ],
)
def test_loss_errors(change, message, sphere_cloud):
    given = {"x": sphere_cloud(5, 0, torch.float32), "v": torch.zeros(5, 3), **change}
    with pytest.raises(ValueError, match=message):
        drift_loss(Sphere(), given.pop("x"), given.pop("v"), **given)


def test_a_single_sample_is_attracted_only(sphere_cloud):
    x, data = sphere_cloud(1, 0), sphere_cloud(10, 1)
    v = drift(Sphere(), Laplace(0.5), x, data)
    torch.testing.assert_close(v, smoothed_score(Sphere(), Laplace(0.5), x, data).gradient)


def test_product_manifolds_drift_at_real_sizes():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.nn.functional.normalize(torch.randn(2, 64, 32, 35, generator=generator), dim=-1).unbind()
    exact = drift(Power(Sphere()), Laplace(0.3), x.double(), y.double())
    v = drift(Power(Sphere()), Laplace(0.3), x, y)
    assert float((v - exact).norm() / exact.norm()) < 1e-4
