"""Conditional training: noise and conditions go together, and the field sees whose they are."""

import pytest
import torch
from drift_core import Batch, Drift, Euclidean, Gaussian, smoothed_score
from drift_core.seeds import generator_for
from drift_core.training.config import TrainConfig
from drift_core.training.learner import CONDITION
from drift_core.training.loop import train
from torch import Tensor, nn
from torch.nn import functional as F

CENTRES = torch.tensor([[2.0, 0.0], [-1.0, 1.0], [0.0, -2.0]])


class Conditional(nn.Module):
    """x = A z + B onehot(c)."""

    def __init__(self) -> None:
        super().__init__()
        self.noise, self.shift = nn.Linear(2, 2), nn.Linear(3, 2, bias=False)
        with torch.no_grad():
            self.noise.weight.copy_(0.5 * torch.eye(2))
            self.shift.weight.zero_()

    def forward(self, z: Tensor, c: Tensor) -> Tensor:
        return self.noise(z) + self.shift(F.one_hot(c, 3).to(z))

    def latent(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.randn(n, 2, generator=generator)


class Grouped:
    """Gaussian kernel between points of equal conditions; data are points with their condition behind."""

    manifold = Euclidean()

    def __init__(self) -> None:
        self.seen: list[Batch] = []

    def __call__(self, batch: Batch) -> Drift:
        self.seen.append(batch)
        x, data, condition, model_condition = batch.x, batch.data, batch.condition, batch.model_condition
        near, far = ((condition[:, None] != c).float() * -1e9 for c in (data[:, 2].long(), model_condition))
        kernel = Gaussian(0.7)
        attraction = smoothed_score(self.manifold, kernel, x, data[:, :2], log_weight=near)
        repulsion = smoothed_score(
            self.manifold, kernel, x, batch.model, log_weight=far, self_index=batch.self_index
        )
        return Drift(attraction.gradient, repulsion.gradient)

    def diagnostics(self, batch: Batch) -> dict[str, float]:
        assert len(batch.x) == len(batch.condition)
        return {"conditions": float(len(batch.condition))}


def sample(n: int, generator: torch.Generator) -> Tensor:
    c = torch.randint(3, (n,), generator=generator)
    return torch.cat([CENTRES[c] + 0.5 * torch.randn(n, 2, generator=generator), c[:, None]], dim=1)


def conditions(n: int, generator: torch.Generator) -> Tensor:
    return torch.randint(3, (n,), generator=generator)


def settings(steps: int, **changes) -> TrainConfig:
    given = {
        "batch_size": 96,
        "lr": 0.02,
        "warmup_steps": 0,
        "weight_decay": 0.0,
        "ema_decay": 0.9,
        "step_size": 0.3,
    }
    return TrainConfig.of(steps=steps, **{**given, **changes})


def test_each_condition_gets_its_own_law(tmp_path):
    trained = train(Conditional(), Grouped(), sample, settings(400), tmp_path, sample_condition=conditions)
    found = trained(torch.zeros(3, 2), torch.arange(3)).detach()
    torch.testing.assert_close(found, CENTRES, atol=0.2, rtol=0)


@pytest.mark.parametrize("micro_batch_size", [None, 5])
def test_conditions_are_those_of_the_rows_they_come_with(tmp_path, micro_batch_size):
    field, network = Grouped(), Conditional()
    config = settings(3, batch_size=12, num_negatives=7, lr=1e-9, micro_batch_size=micro_batch_size)
    train(network, field, sample, config, tmp_path, sample_condition=conditions)
    for step, batch in enumerate(field.seen):
        own, condition, model_condition = batch.self_index, batch.condition, batch.model_condition
        expected = conditions(19, generator_for(config.run.seed, step, CONDITION))
        assert torch.equal(model_condition, expected)
        assert torch.equal(condition, expected[own])
        assert torch.equal(batch.model[own], batch.x)
        noise = network.latent(19, generator_for(config.run.seed, step, 0))
        torch.testing.assert_close(batch.model, network(noise, expected).detach(), atol=1e-6, rtol=0)
