"""Anchors: uniform noise, and a kernel density estimate that draws what it says."""

import math

import pytest
import torch
from drift_sphere.density import Bootstrap, KernelDensity, UniformPoints, fitted_density
from drift_sphere.likelihood import BANDWIDTHS
from scipy.integrate import quad
from scipy.stats import chisquare
from torch import Generator


@pytest.mark.parametrize("bandwidth", [2.0, 0.1, 1e-3])
def test_samples_are_at_the_distances_of_the_kernel(bandwidth):
    pole = torch.tensor([[0.0, 0.0, 1.0]])
    x = KernelDensity(pole, bandwidth).sample(20_000, Generator().manual_seed(1)).double()
    torch.testing.assert_close(x.norm(dim=1), torch.ones(len(x)).double(), rtol=0, atol=1e-6)
    angle = 2 * torch.atan2((x - pole).norm(dim=1), (x + pole).norm(dim=1))
    far = min(math.pi, 12 * bandwidth)
    mass, first, second = (
        quad(lambda d, k=k: d**k * math.sin(d) * math.exp(-((d / bandwidth) ** 2) / 2), 0, far)[0]
        for k in range(3)
    )
    assert float(angle.mean()) == pytest.approx(first / mass, rel=0.02)
    assert float(angle.square().mean()) == pytest.approx(second / mass, rel=0.03)
    assert x[:, :2].mean(0).abs().max() < 0.02 * min(1, bandwidth)


def test_samples_are_around_all_points():
    points = UniformPoints().sample(20, Generator().manual_seed(0))
    x = KernelDensity(points, 1e-3).sample(4_000, Generator().manual_seed(1))
    nearest = torch.cdist(x, points).min(dim=1)
    assert float(nearest.values.max()) < 0.01
    assert nearest.indices.bincount(minlength=20).min() > 120


def test_a_bootstrap_sample_has_each_point_equally_often_and_independently():
    points = UniformPoints().sample(20, Generator().manual_seed(0))
    x = Bootstrap(points).sample(20_000, Generator().manual_seed(1))
    rows = (x[:, None] == points).all(2)
    assert rows.sum(1).tolist() == [1] * len(x)
    counts = rows.sum(0).double()
    assert chisquare(counts.numpy()).pvalue > 1e-3
    pairs = torch.bincount(rows.int().argmax(1).view(-1, 2) @ torch.tensor([20, 1]), minlength=400)
    assert chisquare(pairs.numpy()).pvalue > 1e-3


def test_the_likeliest_bandwidth_on_validation_points_is_taken():
    centres = UniformPoints().sample(300, Generator().manual_seed(2))
    true = KernelDensity(centres, 0.16)
    train, val = (true.sample(n, Generator().manual_seed(n)) for n in (3_000, 500))
    found = fitted_density(train, val)
    assert found.bandwidth in BANDWIDTHS
    assert 0.03 < found.bandwidth < 0.3
    assert torch.equal(found.points, train)


def test_uniform_points_have_the_moments_of_the_sphere():
    x = UniformPoints().sample(20_000, Generator().manual_seed(3))
    torch.testing.assert_close(x.T @ x / len(x), torch.eye(3) / 3, rtol=0, atol=0.01)
    assert x.mean(0).abs().max() < 0.02
