"""Anchors: uniform noise, and a kernel density estimate that integrates to one and draws what it says."""

import math

import pytest
import torch
from drift_sphere.coordinates import spiral_grid
from drift_sphere.density import BANDWIDTHS, KernelDensity, UniformPoints, fitted_density


@pytest.fixture
def points():
    return UniformPoints().sample(20, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("bandwidth", [2.0, 0.3])
def test_a_density_integrates_to_one(points, bandwidth):
    grid = spiral_grid(20_000)
    density = KernelDensity(points, bandwidth).log_density(grid).exp()
    assert float(density.mean()) * 4 * math.pi == pytest.approx(1, rel=2e-3)


def test_a_density_is_that_of_its_kernels(points):
    kappa, x = 0.1**-2, points[:3].double()
    terms = (kappa * (x @ points.double().T - 1)).exp() * kappa / (2 * math.pi * -math.expm1(-2 * kappa))
    found = KernelDensity(points, 0.1).log_density(points[:3])
    torch.testing.assert_close(found, terms.mean(1).log(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bandwidth", [1.0, 0.1, 1e-3])
def test_samples_are_at_the_distances_of_the_kernel(bandwidth):
    """E[w] = coth(kappa) - 1 / kappa for a single kernel, so 1 - w is about bandwidth^2; and no direction."""
    pole, kappa = torch.tensor([[0.0, 0.0, 1.0]]), bandwidth**-2
    x = KernelDensity(pole, bandwidth).sample(20_000, torch.Generator().manual_seed(1)).double()
    torch.testing.assert_close(x.norm(dim=1), torch.ones(len(x)).double(), rtol=0, atol=1e-6)
    height = float((x - pole).square().sum(1).mean() / 2)
    assert height == pytest.approx(1 - (1 / math.tanh(kappa) - 1 / kappa), rel=0.03)
    assert x[:, :2].mean(0).abs().max() < 0.02 * bandwidth


def test_the_likeliest_bandwidth_on_validation_points_is_taken():
    centres = UniformPoints().sample(300, torch.Generator().manual_seed(2))
    true = KernelDensity(centres, 0.1)
    train, val = (true.sample(n, torch.Generator().manual_seed(n)) for n in (2_000, 500))
    found = fitted_density(train, val)
    likelihoods = {b: float(KernelDensity(train, b).log_density(val).mean()) for b in BANDWIDTHS}
    assert found.concentration == max(likelihoods, key=likelihoods.__getitem__) ** -2
    assert 0.01 < found.concentration**-0.5 < 0.3


def test_uniform_points_have_the_moments_of_the_sphere():
    x = UniformPoints().sample(20_000, torch.Generator().manual_seed(3))
    torch.testing.assert_close(x.T @ x / len(x), torch.eye(3) / 3, rtol=0, atol=0.01)
    assert x.mean(0).abs().max() < 0.02
