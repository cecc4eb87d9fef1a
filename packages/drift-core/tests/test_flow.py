"""Particle flow: it converges as its closed form says, stays on its manifold, and depends on nothing else."""

import math

import pytest
import torch
from drift_core import Euclidean, Gaussian, Hyperboloid, KernelField, Laplace, Sphere
from drift_core.flow import particle_flow
from drift_core.lengthscale import parse_lengthscales
from torch import Tensor

GAUSSIAN = KernelField(Euclidean(), Gaussian, parse_lengthscales("1.0"))


def gaussian(n: int, mean: tuple[float, float], sd: float, seed: int) -> Tensor:
    noise = torch.randn(n, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.tensor(mean, dtype=torch.float64) + sd * noise


def test_gaussians_follow_the_closed_form_of_their_mean_and_spread():
    """V is affine: m += h (m1 - m) / (s1^2 + l^2), and s *= 1 + h / (s^2 + l^2) - h / (s1^2 + l^2)."""
    m1, s1, h, steps = torch.tensor([1.0, -0.5]).double(), 0.6, 0.4, 20
    x, data = gaussian(1500, (-1.0, 0.5), 0.3, 0), gaussian(1500, (1.0, -0.5), s1, 1)
    flow = particle_flow(GAUSSIAN, x, data, steps=steps, step_size=h, record=range(steps + 1))
    mean, sd = x.mean(0), 0.3
    for step in range(steps + 1):
        points = flow.records[step]
        assert float((points.mean(0) - mean).abs().max()) < 0.04  # 1,500 points know their mean to 0.015
        assert points.std(0).tolist() == pytest.approx([sd, sd], abs=0.04)
        mean = mean + h * (m1 - mean) / (s1**2 + 1)
        sd = sd * (1 + h / (sd**2 + 1) - h / (s1**2 + 1))
    assert float((mean - m1).norm()) < 0.01 < 0.25 < abs(sd - 0.3)  # the closed form has arrived
    assert torch.equal(flow.x, flow.records[steps])


def test_a_laplace_flow_ends_as_a_sample_of_the_data_on_every_manifold(manifold, cloud):
    """The energy distance, which knows nothing of the kernel, falls to that of a fresh sample."""
    field = KernelField(manifold, Laplace, parse_lengthscales("2:0.5"))
    data, fresh = cloud(120, 0), cloud(120, 1)
    centre = data[:1].expand_as(fresh)
    start = manifold.expmap(centre, 0.1 * manifold.logmap(centre, fresh))
    flow = particle_flow(field, start, data, steps=50, step_size=0.2, max_step=0.5, record=[0, 50])

    def energy(x: Tensor) -> float:
        between = manifold.cdist(x, data).mean()
        return float(2 * between - manifold.cdist(x, x).mean() - manifold.cdist(data, data).mean())

    assert list(flow.records) == [0, 50]
    # Over 10 seeds the start is at least 13 times as far as a fresh sample, and the end at most half as far.
    assert energy(flow.records[0]) > 5 * energy(fresh)
    assert energy(flow.x) < energy(fresh)
    torch.testing.assert_close(manifold.projx(flow.x), flow.x, rtol=0, atol=1e-12)


@pytest.mark.parametrize("surface", [Sphere(), Hyperboloid()], ids=repr)
def test_float32_particles_stay_on_their_manifold(surface):
    noise = torch.randn(2, 200, 3, generator=torch.Generator().manual_seed(0))
    x, data = surface.projx(noise).unbind()
    field = KernelField(surface, Laplace, parse_lengthscales("0.3"))
    x = particle_flow(field, x, data, steps=50, step_size=0.05).x.double()
    square = x.square()
    norm = square.sum(1) if surface.injectivity_radius < math.inf else square[:, 1:].sum(1) - square[:, 0]
    assert x.isfinite().all()
    assert float((norm.abs() - 1).abs().max()) < 1e-5


def test_equal_seeds_give_equal_flows_of_a_sampler():
    def sampler(n: int, generator: torch.Generator) -> Tensor:
        return torch.randn(n, 2, generator=generator)

    x = gaussian(50, (2.0, 0.0), 0.1, 0).float()
    runs = [particle_flow(GAUSSIAN, x, sampler, steps=5, step_size=0.1, seed=seed).x for seed in (3, 3, 4)]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_one_particle_climbs_to_the_mode_of_the_data():
    x = particle_flow(GAUSSIAN, torch.tensor([[3.0, 3.0]]), torch.zeros(1, 2), steps=100, step_size=0.2).x
    torch.testing.assert_close(x, torch.zeros(1, 2), rtol=0, atol=1e-6)


@pytest.mark.parametrize("direction", ["displacement", "gradient"])
def test_displacements_carry_particles_off_the_data_that_they_have_reached(direction):
    """Two particles, each `off` outside a datum of its own; the data are 4 apart, far beyond the kernel.

    A displacement attracts by `off` and repels by 4 + 2 off, the distance of the other particle, so that
    `off` grows by h (4 + off) a step. Gradients of the Laplace kernel have length 1 / l on both sides.
    """
    data, off, steps, h = torch.tensor([[0.0], [4.0]]), 0.1, 30, 0.1
    field = KernelField(Euclidean(), Laplace, parse_lengthscales("0.05"), direction)
    outside = torch.tensor([[-1.0], [1.0]])
    x = particle_flow(field, data + off * outside, data, steps=steps, step_size=h).x
    end = (off + 4) * (1 + h) ** steps - 4 if direction == "displacement" else off
    torch.testing.assert_close(x, data + end * outside, rtol=1e-4, atol=1e-5)


def test_lengthscales_anneal_with_the_steps():
    seen = []

    def kernel(lengthscale: float) -> Gaussian:
        seen.append(lengthscale)
        return Gaussian(lengthscale)

    field = KernelField(Euclidean(), kernel, parse_lengthscales("4:1"))
    particle_flow(field, torch.zeros(2, 2), torch.ones(3, 2), steps=4, step_size=0.1)
    assert seen == pytest.approx([4, 2, 1, 1])


def test_steps_are_capped():
    far = torch.tensor([[100.0, 0.0]])
    field = KernelField(Euclidean(), Laplace, parse_lengthscales("0.1"))
    x = particle_flow(field, torch.zeros(1, 2), far, steps=3, step_size=1.0, max_step=0.5).x
    torch.testing.assert_close(x, torch.tensor([[1.5, 0.0]]))


def test_no_gradient_is_kept():
    x = torch.zeros(2, 2, requires_grad=True)
    assert not particle_flow(GAUSSIAN, x, torch.ones(2, 2), steps=2, step_size=0.1).x.requires_grad


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": torch.full((3, 2), math.nan)}, "NaN or infinite coordinates"),
        ({"data": lambda n, g: torch.full((n, 2), math.nan)}, "NaN or infinite coordinates"),
        ({"x": torch.full((3, 2), math.inf)}, "NaN or infinite coordinates"),
        ({"steps": 0}, "steps and step_size must be positive, got 0 and 0.1"),
        ({"step_size": 0.0}, "steps and step_size must be positive, got 2 and 0.0"),
        ({"step_size": math.nan}, "must be positive, got 2 and nan"),
        ({"record": [3]}, r"recorded steps must lie in 0..2, got \[3\]"),
        ({"max_step": -1.0}, "max_step must lie in"),
        ({"field": KernelField(Sphere(), Laplace, parse_lengthscales("1"))}, "lie off Sphere"),
    ],
)
def test_bad_arguments_are_refused(change, message):
    given = {
        "field": GAUSSIAN, "x": torch.ones(3, 2), "data": torch.ones(3, 2), "steps": 2, "step_size": 0.1
    }  # fmt: skip
    with pytest.raises(ValueError, match=message):
        particle_flow(**{**given, **change})


def test_particles_that_fly_apart_are_an_error():
    data = Hyperboloid().projx(torch.tensor([[1.0, 5.0, 0.0], [1.0, -5.0, 1.0]]))
    field = KernelField(Hyperboloid(), Gaussian, parse_lengthscales("0.1"))
    with pytest.raises(FloatingPointError, match="step 0: a particle is not finite; try a smaller step_size"):
        particle_flow(field, data.flip(0)[:1], data[:1], steps=3, step_size=10.0)
