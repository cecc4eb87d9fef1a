"""Log-likelihoods against closed forms; what recites is at the anchor, what generalises above it."""

import math
import sys

import numpy as np
import pytest
import torch
from drift_sphere import evaluate, spiral_grid, toy
from drift_sphere.evaluate import resample
from drift_sphere.likelihood import BANDWIDTHS, kernel_mass, log_likelihood, mean_log_density
from torch import Generator

KAPPA = 20.0


def von_mises_fisher(n: int, seed: int) -> torch.Tensor:
    """Exact draws around the north pole, by the inverse distribution function of the height."""
    generator = Generator().manual_seed(seed)
    u = torch.rand(n, generator=generator, dtype=torch.float64)
    turn = 2 * math.pi * torch.rand(n, generator=generator, dtype=torch.float64)
    z = 1 + torch.log(u + (1 - u) * math.exp(-2 * KAPPA)) / KAPPA
    r = (1 - z.square()).clamp(min=0).sqrt()
    return torch.stack((r * turn.cos(), r * turn.sin(), z), dim=1).float()


@pytest.mark.parametrize("bandwidth", BANDWIDTHS[3:])
def test_the_mass_of_the_kernel_is_its_sum_over_an_even_grid(bandwidth):
    angle = spiral_grid(200_000).double()[:, 2].clamp(-1, 1).arccos()
    mass = 4 * math.pi * (-(angle**2) / (2 * bandwidth**2)).exp().mean()
    assert kernel_mass(bandwidth) == pytest.approx(float(mass), rel=1e-3)


def test_the_mass_of_a_narrow_kernel_is_that_of_the_plane():
    for bandwidth in BANDWIDTHS[:3]:
        assert kernel_mass(bandwidth) == pytest.approx(2 * math.pi * bandwidth**2, rel=bandwidth**2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_log_density_is_that_of_brute_force(dtype):
    points, x = von_mises_fisher(300, 0).to(dtype), spiral_grid(50).to(dtype)
    angles = np.arccos(np.clip(x.double().numpy() @ points.double().numpy().T, -1, 1))
    for bandwidth in (0.02, 0.3):
        log_kernels = -(angles**2) / (2 * bandwidth**2)
        expected = np.logaddexp.reduce(log_kernels, axis=1).mean() - np.log(300 * kernel_mass(bandwidth))
        assert mean_log_density(points, x, bandwidth) == pytest.approx(expected, rel=1e-5)


def test_many_samples_reach_the_entropy_of_their_law():
    """Of a von Mises-Fisher law, in closed form; of the uniform one, log 4 pi."""
    found = log_likelihood(von_mises_fisher(50_000, 0), von_mises_fisher(400, 1), von_mises_fisher(4_000, 2))
    expected = (
        math.log(KAPPA / (2 * math.pi * -math.expm1(-2 * KAPPA))) + KAPPA / math.tanh(KAPPA) - 1 - KAPPA
    )
    assert found == pytest.approx(expected, abs=0.05)  # the standard error of 4,000 points is 0.016
    uniform = torch.randn(32_000, 3, generator=Generator().manual_seed(3))
    uniform = uniform / uniform.norm(dim=1, keepdim=True)
    found = log_likelihood(*uniform.split([30_000, 500, 1_500]))
    assert found == pytest.approx(-math.log(4 * math.pi), abs=0.02)


def test_a_generator_that_recites_is_at_the_anchor_and_one_that_generalises_above(monkeypatch):
    # The package's attribute of this name is the function.
    monkeypatch.setattr(sys.modules["drift_sphere.evaluate"], "LIKELIHOOD_POINTS", 20_000)
    train, val, test = toy(900, Generator().manual_seed(1)).float().split([300, 200, 400])

    def score(sampler):
        return evaluate(sampler, train, test, draws=1, val=val)["log_likelihood"]

    recited = score(lambda n, generator: resample(train, n, generator))
    fresh = score(lambda n, generator: toy(n, generator).float())
    half = score(lambda n, generator: resample(train[train[:, 2] > 0], n, generator))
    assert recited.floor == fresh.floor == half.floor
    assert recited.value == pytest.approx(recited.floor, abs=0.02)
    assert fresh.value > fresh.floor + 0.1
    assert half.value < half.floor - 0.1
