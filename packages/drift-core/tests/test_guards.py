"""What goes wrong is said: before training, at the step where it happens, or once while it goes on."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from drift_core import Batch, Drift, Euclidean, Gaussian, KernelField, Manifold, TrainConfig, train
from drift_core.lengthscale import parse_lengthscales
from drift_core.manifold.checks import check_on_manifold
from drift_core.training.guards import check_engine, check_space
from torch import Tensor, nn

FIELD = KernelField(Euclidean(), Gaussian, parse_lengthscales("1.0"))
CONFIG = TrainConfig.of(steps=12, batch_size=16, save_every=4, log_every=2)


class Affine(nn.Linear):
    """x = A z + b."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(2, 2)

    def latent(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.randn(n, 2, generator=generator)


def sample(n: int, generator: torch.Generator) -> Tensor:
    return torch.randn(n, 2, generator=generator)


class BadGradient(torch.autograd.Function):
    """The identity, with a gradient that is not a number."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * float("nan")


class Spoilt(Affine):
    """Goes wrong in the sixth step."""

    calls = 0

    def forward(self, z: Tensor) -> Tensor:
        self.calls += 1
        x = super().forward(z)
        return self.spoil(x) if self.calls == 6 else x


class BadSample(Spoilt):
    def spoil(self, x: Tensor) -> Tensor:
        return torch.where(torch.arange(len(x))[:, None] == 3, float("inf"), x)


class BadBackward(Spoilt):
    def spoil(self, x: Tensor) -> Tensor:
        return BadGradient.apply(x)


@dataclass
class BadField:
    """A field that is not finite once more than a third of training is over."""

    manifold: Manifold = FIELD.manifold

    def __call__(self, batch: Batch) -> Drift:
        drift = FIELD(batch)
        return Drift(drift.attraction / (batch.progress < 0.4), drift.repulsion)


@pytest.mark.parametrize(
    ("module", "field", "culprit"),
    [(BadSample, FIELD, "a sample"), (BadBackward, FIELD, "a gradient"), (Affine, BadField(), "the drift")],
)
def test_what_is_not_finite_is_named_before_it_spoils_the_weights(tmp_path, module, field, culprit):
    network = module()
    with pytest.raises(FloatingPointError, match=rf"step 5: {culprit} is not finite.*step_000000004\.pt"):
        train(network, field, sample, CONFIG, tmp_path)
    assert all(bool(p.isfinite().all()) for p in network.parameters())
    train(Affine(), FIELD, sample, CONFIG.replace(lr=1e-4), tmp_path, resume=True)


def test_without_a_checkpoint_the_message_says_so(tmp_path):
    with pytest.raises(FloatingPointError, match="there is no checkpoint yet"):
        train(BadSample(), FIELD, sample, CONFIG.replace(save_every=100), tmp_path)


class Collapsed(Affine):
    """Maps all noise to one point."""

    def forward(self, z: Tensor) -> Tensor:
        return super().forward(0 * z)


def test_collapse_is_reported_once(tmp_path, capfd):
    train(Collapsed(), FIELD, sample, CONFIG, tmp_path)
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert len(lines) == 1
    assert lines[0].startswith("warning: step 4: all samples coincide")


def test_steps_that_are_all_capped_are_reported_once(tmp_path, capfd):
    train(Affine(), FIELD, sample, CONFIG.replace(max_step=1e-5), tmp_path)
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert len(lines) == 1
    assert lines[0].startswith("warning: step 4: all steps are capped")


def test_a_sound_run_reports_nothing(tmp_path, capfd):
    train(Affine(), FIELD, sample, CONFIG, tmp_path)
    assert "warning" not in capfd.readouterr().err


def test_equal_data_are_not_taken_for_collapse(tmp_path, capfd):
    train(Collapsed(), FIELD, lambda n, generator: torch.ones(n, 2), CONFIG, tmp_path)
    assert "coincide" not in capfd.readouterr().err


def test_tokens_are_not_points():
    check_on_manifold(Euclidean(), torch.randint(4, (8, 5)))


def test_engines_that_would_change_the_batch_or_its_loss_are_refused(monkeypatch):
    with pytest.raises(ValueError, match="gradient accumulation"):
        check_engine(Accelerator(cpu=True, gradient_accumulation_steps=2))
    sound = Accelerator(cpu=True)
    check_engine(sound)
    monkeypatch.setattr(sound, "scaler", object())
    with pytest.raises(ValueError, match="fp16"):
        check_engine(sound)


def test_a_disk_too_small_is_refused_before_the_first_step(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=500)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match=r"checkpoints need 0\.0 MB, 0\.0 MB are free.*`keep`"):
        train(Affine(), FIELD, sample, CONFIG.replace(keep=10), tmp_path)
    assert list((tmp_path / "checkpoints").iterdir()) == []
    assert not (tmp_path / "metrics.jsonl").exists()


def test_checkpoints_that_are_there_need_no_more_space(tmp_path, monkeypatch):
    train(Affine(), FIELD, sample, CONFIG, tmp_path)
    for free, fits in ((96, True), (95, False)):  # one more of 24 numbers
        usage = shutil.disk_usage(tmp_path)._replace(free=free)
        monkeypatch.setattr(shutil, "disk_usage", lambda path, usage=usage: usage)
        if fits:
            check_space(tmp_path, Affine(), keep=2)
        else:
            with pytest.raises(OSError, match="checkpoints need"):
                check_space(tmp_path, Affine(), keep=2)


def test_a_folder_that_cannot_be_made_is_refused_before_the_first_step(tmp_path):
    (tmp_path / "run").write_text("mine")
    with pytest.raises(OSError, match="run"):
        train(Affine(), FIELD, sample, CONFIG, tmp_path / "run")
    assert (tmp_path / "run").read_text() == "mine"


@dataclass
class Spy:
    """A field that notes the types of what it is given."""

    manifold: Manifold
    seen: list[torch.dtype]

    def __call__(self, batch: Batch) -> Drift:
        self.seen += [batch.x.dtype, batch.data.dtype, batch.model.dtype]
        return FIELD(batch)


@pytest.fixture
def fresh_accelerate():
    """Accelerate keeps one precision a process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def test_mixed_precision_ends_at_the_network(tmp_path, fresh_accelerate):
    network, spy, inside = Affine(), Spy(FIELD.manifold, []), []
    network.register_forward_hook(lambda module, z, x: inside.append(x.dtype))
    accelerator = Accelerator(cpu=True, mixed_precision="bf16")
    trained = train(network, spy, sample, CONFIG, tmp_path, accelerator=accelerator)
    assert set(inside) == {torch.bfloat16}
    assert len(spy.seen) == 36
    assert set(spy.seen) == {torch.float32}
    assert trained.weight.dtype == torch.float32
    records = [json.loads(line) for line in Path(tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert len(records) == 6
