import pytest
import torch
from drift_core import (
    BalancedField,
    Batch,
    Drift,
    Euclidean,
    Field,
    KernelField,
    Laplace,
    PullbackField,
    Sphere,
    SumField,
    TrainConfig,
)
from drift_core.field import modules_of, observe
from drift_core.lengthscale import parse_lengthscales
from drift_core.training.loop import resample


def field_of(manifold, scale: str = "0.5") -> KernelField:
    return KernelField(manifold, Laplace, parse_lengthscales(scale))


def step(field: Field, *batch: torch.Tensor, progress: float) -> Drift:
    """Drift of a batch, which the field then observes, as in training."""
    seen = Batch(*batch, progress=progress)
    drift = field(seen)
    observe(field, seen)
    return drift


@pytest.fixture
def clouds():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(40, 2, generator=generator), 1 + torch.randn(12, 2, generator=generator)


def learn(balanced: BalancedField, x: torch.Tensor, numbers: torch.Tensor, times: int) -> None:
    for _ in range(times):
        step(balanced, x, numbers, x, torch.arange(len(x)), progress=0.0)


def test_the_weights_become_those_of_sinkhorn(clouds):
    x, data = clouds
    balanced = BalancedField(field_of(Euclidean()), data)
    learn(balanced, x, torch.arange(12), 200)

    log_k = (-torch.cdist(x.double(), data.double()) / 0.5).requires_grad_(False)
    f, g = torch.zeros(40, dtype=torch.float64), torch.zeros(12, dtype=torch.float64)
    for _ in range(2000):  # rows sum to 1/40, columns to 1/12
        f = -torch.log(torch.tensor(40.0)) - (log_k + g).logsumexp(1)
        g = -torch.log(torch.tensor(12.0)) - (log_k + f[:, None]).logsumexp(0)
    torch.testing.assert_close(balanced.potential.double(), g - g.mean(), atol=1e-3, rtol=0)


def test_small_batches_of_data_find_the_same_weights(clouds):
    x, data = clouds
    whole, parts = (BalancedField(field_of(Euclidean()), data) for _ in range(2))
    learn(whole, x, torch.arange(12), 200)
    assert float(whole.potential.std()) > 0.3
    pick = resample(torch.arange(12))
    generator = torch.Generator().manual_seed(1)
    for _ in range(600):
        learn(parts, x, pick(8, generator), 1)
    # Within a batch each datum competes with the others present only, hence not exactly.
    torch.testing.assert_close(parts.potential, whole.potential, atol=0.25, rtol=0)


def test_a_mode_without_samples_attracts_once_balanced():
    data = torch.tensor([[0.0, 0.0], [20.0, 0.0]])
    x = 0.1 * torch.randn(32, 2, generator=torch.Generator().manual_seed(0))
    plain, balanced = field_of(Euclidean()), BalancedField(field_of(Euclidean()), data)
    own = torch.arange(32)
    towards = step(plain, x, data, x, own, progress=0.0).attraction
    assert float(towards[:, 0].mean().abs()) < 0.5  # the other mode is not seen at all
    learn(balanced, x, torch.arange(2), 300)
    towards = step(balanced, x, torch.arange(2), x, own, progress=0.0).attraction
    assert float(towards[:, 0].mean()) > 0.8  # half of the unit vectors / 0.5 point there


def test_the_field_ends_as_the_one_it_wraps(clouds):
    x, data = clouds
    field = field_of(Euclidean())
    balanced, own = BalancedField(field, data), torch.arange(len(x))
    learn(balanced, x, torch.arange(12), 50)
    before = balanced.potential.clone()
    for progress, factor in ((0.5, 1.0), (0.7, 1.0), (0.775, 0.5), (0.85, 0.0), (1.0, 0.0)):
        assert balanced.strength(progress) == pytest.approx(factor, abs=1e-6)
    at_end = step(balanced, x, torch.arange(12), x, own, progress=0.9)
    torch.testing.assert_close(at_end.field, step(field, x, data, x, own, progress=0.9).field, atol=0, rtol=0)
    torch.testing.assert_close(balanced.potential, before, atol=0, rtol=0)
    assert balanced.diagnostics(Batch(x, torch.arange(12))) == field.diagnostics(Batch(x, data))


def test_a_resumed_run_keeps_the_weights(fit, tmp_path):
    data = Sphere().projx(torch.randn(30, 3, generator=torch.Generator().manual_seed(1)))
    config = TrainConfig.of(steps=20, batch_size=16, num_positives=10, save_every=7, log_every=7)

    def run(folder, stop: int | None):
        return fit(lambda: BalancedField(field_of(Sphere()), data), torch.arange(30), config, folder, stop)

    (whole, weights), (stopped, same) = run(tmp_path / "a", None), run(tmp_path / "b", 12)
    assert float(whole.potential.std()) > 0
    torch.testing.assert_close(stopped.potential, whole.potential, atol=0, rtol=0)
    torch.testing.assert_close(same, weights, atol=0, rtol=0)


def test_a_resumed_run_keeps_the_weights_of_a_field_within_others(fit, tmp_path):
    data = Sphere().projx(torch.randn(30, 3, generator=torch.Generator().manual_seed(1)))
    config = TrainConfig.of(steps=20, batch_size=16, num_positives=10, save_every=7, log_every=7)

    def make() -> Field:
        inner = PullbackField(
            lambda x: x, BalancedField(field_of(Sphere()), data), Sphere(), lambda index: index
        )
        return SumField([inner], [1.0])

    def run(folder, stop: int | None):
        return fit(make, torch.arange(30), config, folder, stop)

    (whole, weights), (stopped, same) = run(tmp_path / "a", None), run(tmp_path / "b", 12)
    (learnt,), (again,) = modules_of(whole), modules_of(stopped)
    assert float(learnt.potential.std()) > 0
    torch.testing.assert_close(again.potential, learnt.potential, atol=0, rtol=0)
    torch.testing.assert_close(same, weights, atol=0, rtol=0)


@pytest.mark.parametrize(("until", "rate"), [(0.0, 0.3), (1.0, 0.3), (0.7, 0.0)])
def test_settings_out_of_range_are_refused(until, rate):
    with pytest.raises(ValueError, match="until"):
        BalancedField(field_of(Sphere()), torch.eye(3), until=until, rate=rate)
