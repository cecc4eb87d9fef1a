"""The loop: it learns, it is reproducible, it resumes exactly, and it says what is wrong."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from drift_core import Euclidean, Gaussian, KernelField, Sphere
from drift_core.lengthscale import parse_lengthscales
from drift_core.seeds import generator_for
from drift_core.training.config import TrainConfig
from drift_core.training.denormal import denormals_as_zero
from drift_core.training.loop import train
from drift_core.training.parallel import make_accelerator
from drift_core.training.samplers import resample
from torch import Tensor, nn


class Affine(nn.Module):
    """x = A z + b, whose image of noise is a Gaussian."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(2, 2)
        with torch.no_grad():
            self.map.weight.copy_(0.3 * torch.eye(2))
            self.map.bias.zero_()

    def forward(self, z: Tensor) -> Tensor:
        return self.map(z)

    def latent(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.randn(n, 2, generator=generator)


FIELD = KernelField(Euclidean(), Gaussian, parse_lengthscales("1.0"))


def data(n: int = 512) -> Tensor:
    return torch.tensor([1.5, -0.5]) + torch.randn(n, 2, generator=torch.Generator().manual_seed(7))


def run(out: Path, steps: int = 30, *, module: nn.Module | None = None, resume: bool = False, **settings):
    given = {"steps": steps, "batch_size": 64, "ema_decay": 0.99, "log_every": 5, "save_every": 10}
    config = TrainConfig.of(**{**given, **settings})
    return train(module or Affine(), FIELD, resample(data()), config, out, resume=resume)


def weights(module: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def test_it_learns_the_mean_and_the_spread(tmp_path):
    trained = run(
        tmp_path,
        600,
        batch_size=256,
        lr=0.02,
        step_size=0.5,
        ema_decay=0.98,
        warmup_steps=10,
        weight_decay=0.0,
    )
    points = data()
    assert float((trained.map.bias.detach() - points.mean(0)).norm()) < 0.15
    covariance = (trained.map.weight @ trained.map.weight.T).detach()
    assert float((covariance - points.T.cov()).abs().max()) < 0.3


def test_same_seed_same_weights(tmp_path):
    a, b, c = run(tmp_path / "a"), run(tmp_path / "b"), run(tmp_path / "c", seed=1)
    assert bool((weights(a) == weights(b)).all())
    assert not torch.equal(weights(a), weights(c))


@pytest.mark.parametrize(
    "settings", [{}, {"optimizer": "adam", "beta1": 0.5, "beta2": 0.9}, {"optimizer": "muon"}], ids=str
)
def test_a_resumed_run_is_bit_identical(tmp_path, settings):
    whole = run(tmp_path / "whole", 30, **settings)
    run(tmp_path / "cut", 20, decay_fraction=0.0, **settings)
    with (tmp_path / "cut" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 25, "loss": 1.0}\n{"step": 26, "lo')
    resumed = run(tmp_path / "cut", 30, resume=True, **settings)
    assert bool((weights(resumed) == weights(whole)).all())
    logs = [(tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("whole", "cut")]
    assert logs[0][-2:] == logs[1][-2:]


def test_records(tmp_path):
    run(tmp_path, 12)
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records] == [5, 10, 12]
    keys = {"step", "loss", "drift_norm", "attraction_norm", "repulsion_norm", "ess", "clipped", "lr"}
    assert all(set(r) == keys for r in records)
    assert all(1 <= r["ess"] <= 64 for r in records)


@pytest.mark.parametrize("power", [1.0, 3.0])
def test_the_learning_rate_warms_up_stays_and_cools_down(tmp_path, power):
    run(tmp_path, 20, lr=0.1, warmup_steps=4, decay_fraction=0.5, decay_power=power, log_every=1)
    rates = [json.loads(line)["lr"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    expected = [0.025, 0.05, 0.075] + [0.1] * 8 + [0.1 * (1 - i / 10) ** power for i in range(1, 10)]
    assert rates == pytest.approx(expected)


def test_without_cooldown_the_learning_rate_is_constant_after_the_warm_up(tmp_path):
    run(tmp_path, 20, lr=0.1, warmup_steps=4, decay_fraction=0.0, decay_power=500.0, log_every=1)
    rates = [json.loads(line)["lr"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rates[3:] == [0.1] * 17


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_without_memory_and_decay_the_optimizer_takes_steps_of_one_length(tmp_path, optimizer):
    """Adam's update is m / (sqrt(v) + 1e-8), which for betas of 0 is the sign of the gradient."""
    settings = {
        "lr": 1e-3,
        "warmup_steps": 0,
        "beta1": 0.0,
        "beta2": 0.0,
        "weight_decay": 0.0,
        "ema_decay": 0.0,
    }
    trained = run(tmp_path, 5, optimizer=optimizer, **settings)
    steps = (weights(trained) - weights(Affine())) / 1e-3
    torch.testing.assert_close(steps, steps.round(), atol=0.01, rtol=0)
    assert bool((steps.round().abs() % 2 == 1).all())  # five steps of +1 or -1


def test_weight_decay_is_decoupled_in_adamw_and_a_penalty_in_adam(tmp_path):
    """A penalty far above the gradient sets the sign of Adam's step; AdamW shrinks weights beside its own."""
    one = {"lr": 1e-3, "warmup_steps": 0, "ema_decay": 0.0, "weight_decay": 100.0}
    penalised, decayed = (run(tmp_path / name, 1, optimizer=name, **one) for name in ("adam", "adamw"))
    start = Affine().map.weight.detach().diagonal()
    torch.testing.assert_close(penalised.map.weight.detach().diagonal(), start - 1e-3, atol=1e-6, rtol=0)
    steps = decayed.map.weight.detach().diagonal() - (1 - 1e-3 * 100) * start
    torch.testing.assert_close(steps.abs(), torch.full((2,), 1e-3), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("settings", "decay"),
    [
        ({}, 0.01),
        ({"optimizer": "adam"}, 0.0),
        ({"optimizer": "adam", "weight_decay": 0.1}, 0.1),
        ({"weight_decay": 0.0}, 0.0),
    ],
    ids=str,
)
def test_adam_has_no_weight_decay_unless_it_is_given(settings, decay):
    assert TrainConfig.of(**settings).optimizer.parameters_at(0)["weight_decay"] == decay


def test_capped_steps_are_reported(tmp_path):
    run(tmp_path, 5, max_step=1e-4)
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["clipped"] == 1.0


def test_the_last_two_checkpoints_are_kept(tmp_path):
    run(tmp_path, 35)
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["step_000000030.pt", "step_000000035.pt"]


def test_a_run_stopped_before_its_first_checkpoint_resumes_from_the_start(tmp_path):
    whole, resumed = run(tmp_path / "a", 5), run(tmp_path / "b", 5, resume=True)
    assert bool((weights(resumed) == weights(whole)).all())


@pytest.fixture
def restore_signals():
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Interrupting(Affine):
    """Sends this process a signal in the middle of its seventh step."""

    number, calls = signal.SIGINT, 0

    def forward(self, z: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == 7:
            os.kill(os.getpid(), self.number)
        return super().forward(z)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_between_two_steps_and_the_run_resumes_exactly(tmp_path, number, restore_signals):
    before = signal.default_int_handler
    signal.signal(number, before)
    module = Interrupting()
    module.number = number
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", 30, module=module)
    assert signal.getsignal(number) == before
    assert [path.name for path in (tmp_path / "cut" / "checkpoints").iterdir()] == ["step_000000007.pt"]
    resumed, whole = run(tmp_path / "cut", 30, resume=True), run(tmp_path / "whole", 30)
    assert bool((weights(resumed) == weights(whole)).all())


class Twice(Interrupting):
    """Sends the same signal twice in one step."""

    def forward(self, z: Tensor) -> Tensor:
        if self.calls == 6:
            os.kill(os.getpid(), self.number)
        return super().forward(z)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_echo_of_a_signal_is_the_same_signal(tmp_path, number, restore_signals):
    signal.signal(number, signal.default_int_handler)
    module = Twice()
    module.number = number
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, 30, module=module)
    assert (tmp_path / "checkpoints" / "step_000000007.pt").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_later_signal_acts_at_once(tmp_path, number, restore_signals, monkeypatch):
    monkeypatch.setattr("drift_core.training.signals._ECHO", -1.0)
    signal.signal(number, signal.default_int_handler)
    module = Interrupting()
    module.number = number
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, 30, module=module)
    assert not list((tmp_path / "checkpoints").iterdir())


class Broken(Affine):
    def forward(self, z: Tensor) -> Tensor:
        return self.map(z) * float("nan")


def test_a_sample_that_is_not_finite_stops_the_run(tmp_path):
    with pytest.raises(FloatingPointError, match="step 0: a sample is not finite"):
        run(tmp_path, 5, module=Broken())


@pytest.mark.parametrize(
    ("points", "message"),
    [(torch.full((64, 3), 2.0), "off Sphere"), (torch.full((64, 3), float("nan")), "NaN or infinite")],
)
def test_data_off_the_manifold_are_refused(tmp_path, points, message):
    field = KernelField(Sphere(), Gaussian, parse_lengthscales("1.0"))
    with pytest.raises(ValueError, match=message):
        train(Affine(), field, resample(points), TrainConfig.of(steps=1), tmp_path)


def test_samples_off_the_manifold_are_refused_before_the_weights_change(tmp_path):
    field = KernelField(Sphere(), Gaussian, parse_lengthscales("1.0"))
    points = nn.functional.normalize(data() @ torch.ones(2, 2) + torch.eye(2)[0], dim=-1)
    module = Affine()
    before = weights(module).clone()
    with pytest.raises(ValueError, match=r"the samples of the generator lie off Sphere\(\): projecting them"):
        train(module, field, resample(points), TrainConfig.of(steps=3), tmp_path)
    assert torch.equal(weights(module), before)


def test_a_folder_that_holds_a_run_is_left_alone_without_resume(tmp_path):
    run(tmp_path, 12)
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match="already holds a run; name another folder, or continue it"):
        run(tmp_path, 12)
    (tmp_path / "metrics.jsonl").unlink()  # checkpoints alone are a run, too
    with pytest.raises(ValueError, match="already holds a run"):
        run(tmp_path, 12)
    left = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {path: old for path, old in files.items() if path.name != "metrics.jsonl"}
    run(tmp_path, 14, resume=True)


def test_resampling_gives_distinct_rows_or_everything():
    points = torch.arange(10.0)[:, None]
    few = resample(points)(4, generator_for(0))
    assert len(set(few.flatten().tolist())) == 4
    assert torch.equal(resample(points)(10, generator_for(0)), points)


def test_streams_are_independent_of_one_another():
    draws = {
        float(torch.rand((), generator=generator_for(*key)))
        for key in [(0,), (0, 1), (1, 0), (0, 1, 2), (1,)]
    }
    assert len(draws) == 5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "`steps` must be at least 1, got 0"),
        ({"batch_size": 1}, "`batch_size` must be at least 2, got 1"),
        ({"lr": -1.0}, "`lr` must be positive and finite, got -1.0"),
        ({"lr": float("nan")}, "`lr` must be positive and finite, got nan"),
        ({"lr": float("inf")}, "`lr` must be positive and finite, got inf"),
        ({"weight_decay": -0.1}, "`weight_decay` must be finite and not negative, got -0.1"),
        ({"beta1": 1.0}, r"`beta1` must lie in \[0, 1\), got 1.0"),
        ({"beta2": -0.1}, r"`beta2` must lie in \[0, 1\), got -0.1"),
        ({"beta2": float("nan")}, r"`beta2` must lie in \[0, 1\), got nan"),
        ({"seed": -1}, "`seed` must be at least 0, got -1"),
        ({"keep": 0}, "`keep` must be at least 1, got 0"),
        ({"batch_size": 10**12}, "`batch_size` must be at most 2147483647, got 1000000000000"),
        ({"ema_decay": 1.0}, r"`ema_decay` must lie in \[0, 1\), got 1.0"),
        ({"micro_batch_size": 0}, "`micro_batch_size` must be at least 1, got 0"),
    ],
)
def test_settings_are_checked_by_name(settings, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig.of(**settings).check()


def test_processes_that_do_not_join_are_noticed(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(
        "drift_core.training.parallel.Accelerator", lambda **_: type("A", (), {"num_processes": 1})()
    )
    with pytest.raises(RuntimeError, match="2 processes were launched, but 1 take part"):
        make_accelerator()


def test_missing_tracker(monkeypatch):
    monkeypatch.setattr("drift_core.training.parallel.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="`tracker` wandb needs the package wandb"):
        make_accelerator("wandb")


@pytest.mark.parametrize(
    ("steps", "given", "decay"),
    [(9_000, None, 0.999), (600, None, 0.985), (5, None, 0.0), (600, 0.9, 0.9), (600, 0.0, 0.0)],
)
def test_the_average_is_over_a_share_of_the_training(steps, given, decay):
    assert TrainConfig.of(steps=steps, ema_decay=given).optimizer.averaging == pytest.approx(decay)


def tiny() -> float:
    """A denormal number, or 0 where those count as zero."""
    return float(torch.full((1,), 1e-40) * 1)


class Noting(Affine):
    """Notes what a denormal number is worth while it is trained."""

    seen: set[float]

    def forward(self, z: Tensor) -> Tensor:
        self.seen.add(tiny())
        return super().forward(z)


def test_denormal_numbers_are_zero_while_training_and_not_after(tmp_path):
    module, module_seen = Noting(), set()
    Noting.seen = module_seen
    assert tiny() > 0
    run(tmp_path / "alone", 2, module=module)
    assert 0.0 in module_seen
    assert tiny() > 0
    with denormals_as_zero():
        run(tmp_path / "inside", 4, module=Noting())
        assert tiny() == 0
    assert tiny() > 0
