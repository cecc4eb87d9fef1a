"""Flow matching: its geodesics against derivatives, its sampler against a known flow, and what it learns."""

import pytest
import torch
from drift_core import Sphere
from drift_sphere.data import Points
from drift_sphere.domain import SphereConfig
from drift_sphere.flow_matching import FlowMatching, flow_matching, geodesic


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_velocity_is_the_derivative_of_the_geodesic(dtype):
    x, y = torch.nn.functional.normalize(torch.randn(2, 50, 3, dtype=dtype), dim=-1)
    y[:5] = x[:5]
    t = torch.rand(50, 1, dtype=dtype)
    found, derivative = torch.func.jvp(lambda t: geodesic(x, y, t)[0], (t,), (torch.ones_like(t),))
    point, velocity = geodesic(x, y, t)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-11
    torch.testing.assert_close(point, found)
    torch.testing.assert_close(velocity, derivative, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(velocity.norm(dim=-1), Sphere().dist(x, y), atol=tolerance, rtol=tolerance)
    ends = [geodesic(x, y, torch.full_like(t, end))[0] for end in (0.0, 1.0)]
    torch.testing.assert_close(torch.stack(ends), torch.stack([x, y]), atol=tolerance, rtol=0)


def test_sampler_follows_the_field(monkeypatch):
    """A rotation by the angle 1 about the north pole, whose orbits away from the equator are no geodesics."""
    axis = torch.tensor([0.0, 0.0, 1.0])
    monkeypatch.setattr(FlowMatching, "forward", lambda self, x, t: axis.expand_as(x).cross(x, dim=-1))
    cos, sin = torch.tensor(1.0).cos(), torch.tensor(1.0).sin()
    turn = torch.tensor([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    errors = []
    for evaluations in (10, 100):
        model = FlowMatching(evaluations=evaluations)
        samples, start = (
            m.sample(100, torch.Generator().manual_seed(0)) for m in (model, FlowMatching(evaluations=0))
        )
        errors.append(float((samples - start @ turn.T).norm(dim=-1).max()))
        torch.testing.assert_close(samples.norm(dim=-1), torch.ones(100))
    assert errors[1] < errors[0] / 5
    assert errors[1] < 0.01


def test_it_learns_where_the_data_are():
    pole = torch.tensor([0.0, 0.6, 0.8])
    noise = torch.randn(2_000, 3, generator=torch.Generator().manual_seed(0))
    train = torch.nn.functional.normalize(pole + 0.1 * noise, dim=-1)
    config = SphereConfig.of(steps=150, batch_size=256, lr=3e-3, warmup_steps=10)
    state = torch.get_rng_state()
    models = [flow_matching(config, Points(train, train[:9], train[:9]), evaluations=20) for _ in range(2)]
    assert torch.equal(torch.get_rng_state(), state)
    samples, again = (model.sample(1_000, torch.Generator().manual_seed(1)) for model in models)
    assert torch.equal(samples, again)
    assert (samples.mean(0) - train.mean(0)).norm() < 0.1
    assert (samples.std(0) - train.std(0)).abs().max() < 0.1
