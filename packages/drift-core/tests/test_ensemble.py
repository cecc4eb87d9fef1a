"""Several generators trained together end where each would alone."""

from pathlib import Path

import pytest
import torch
from drift_core import Gaussian, KernelField, NearestField, Sphere
from drift_core.lengthscale import parse_lengthscales
from drift_core.training import TrainConfig, Training, resample, train, train_together
from drift_core.training.records import read_records
from torch import Generator, Tensor, nn

SEEDS = (0, 1, 2)


class Network(nn.Module):
    """Points on the sphere from normal numbers, with a bias from a condition and a buffer."""

    shift: Tensor

    def __init__(self, seed: int, width: int = 16) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.network = nn.Sequential(nn.Linear(4, width), nn.SiLU(), nn.LayerNorm(width), nn.Linear(width, 3))
        self.classes = nn.Embedding(3, 3)
        self.register_buffer("shift", torch.full((3,), 0.1 * seed))

    def forward(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        x = self.network(z) + self.shift
        return Sphere().projx(x if condition is None else x + self.classes(condition))

    def latent(self, n: int, generator: Generator) -> Tensor:
        return torch.randn(n, 4, generator=generator)


def training(out: Path, seed: int, width: int = 16, **settings) -> Training[Network]:
    conditional = settings.pop("conditional", False)
    points = Sphere().projx(torch.randn(200, 3, generator=Generator().manual_seed(9)))
    field = KernelField(Sphere(), Gaussian, parse_lengthscales("1:0.2"))
    given = {"steps": 12, "batch_size": 32, "log_every": 4, "save_every": 4, "warmup_steps": 2}
    return Training(
        Network(seed, width),
        NearestField(field, points, buffer_size=64, neighbors=16) if seed == 2 else field,
        resample(points),
        TrainConfig.of(**{**given, **settings}, seed=seed, lr=0.01 * (1 + seed)),
        out / str(seed),
        (lambda n, generator: torch.randint(3, (n,), generator=generator)) if conditional else None,
        validate=lambda network: float(network.latent(8, Generator().manual_seed(1)).sum()),
    )


def weights(module: nn.Module) -> Tensor:
    return torch.cat([value.flatten() for value in module.state_dict().values()])


def alone(part: Training[Network]) -> Network:
    return train(
        part.module,
        part.field,
        part.sample_data,
        part.config,
        part.out,
        sample_condition=part.sample_condition,
        validate=part.validate,
    )


@pytest.mark.parametrize(
    "settings", [{}, {"num_negatives": 16, "clip_norm": 1e-3}, {"conditional": True, "num_negatives": 8}]
)
def test_each_ends_where_it_would_alone(tmp_path, settings):
    """Also with a clip of each gradient, which a norm over all generators would shorten further."""
    together = train_together([training(tmp_path / "together", seed, **settings) for seed in SEEDS])
    for seed, found in zip(SEEDS, together, strict=True):
        expected = alone(training(tmp_path / "alone", seed, **settings))
        torch.testing.assert_close(weights(found), weights(expected), rtol=1e-4, atol=1e-5)
        folders = [tmp_path / name / str(seed) for name in ("together", "alone")]
        logs = [[record["loss"] for record in read_records(folder)] for folder in folders]
        assert logs[0] == pytest.approx(logs[1], rel=1e-3)


def test_generators_that_stopped_at_different_steps_go_on_together(tmp_path):
    whole = train_together([training(tmp_path / "whole", seed) for seed in SEEDS])
    train_together([training(tmp_path / "parts", seed) for seed in SEEDS])
    (tmp_path / "parts" / "1" / "checkpoints" / "step_000000012.pt").unlink()
    parts = [training(tmp_path / "parts", seed) for seed in SEEDS]
    found = train_together([Training(**{**vars(part), "resume": True}) for part in parts])
    for a, b in zip(found, whole, strict=True):
        torch.testing.assert_close(weights(a), weights(b), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"width": 8}, "one architecture"),
        ({"steps": 13}, "one `steps`"),
        ({"batch_size": 16}, "one `batch_size`"),
        ({"micro_batch_size": 4}, "micro_batch_size"),
    ],
)
def test_generators_that_cannot_share_a_pass_are_refused(tmp_path, other, message):
    with pytest.raises(ValueError, match=message):
        train_together([training(tmp_path, 0), training(tmp_path, 1, **other)])
