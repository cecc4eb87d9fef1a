import math

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
from drift_core.training.samplers import resample


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


def angles(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.arccos((x @ y.T).clamp(-1, 1))


SPACES = {"plane": (Euclidean(), torch.cdist), "sphere": (Sphere(), angles)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("space", SPACES)
def test_the_weights_become_those_of_sinkhorn(space, dtype):
    (manifold, distances), generator = SPACES[space], torch.Generator().manual_seed(0)
    draw = lambda n: manifold.projx(torch.randn(n, 3, generator=generator, dtype=torch.float64))  # noqa: E731
    x, data = draw(40), manifold.projx(draw(12) + torch.tensor([1.0, 0, 0]))
    balanced = BalancedField(field_of(manifold, "0.2"), data.to(dtype), limit=30.0)
    learn(balanced, x.to(dtype), torch.arange(12), 300)

    log_k = -distances(x, data) / 0.2
    f, g = torch.zeros(40, dtype=torch.float64), torch.zeros(12, dtype=torch.float64)
    for _ in range(2000):  # rows sum to 1/40, columns to 1/12
        f = -math.log(40) - (log_k + g).logsumexp(1)
        g = -math.log(12) - (log_k + f[:, None]).logsumexp(0)
    assert 1 < float(g.max() - g.min()) < 15
    torch.testing.assert_close(balanced.potential.double(), g - g.mean(), atol=1e-4, rtol=0)


@pytest.fixture
def weights_after(monkeypatch):
    """Learner of log-weights from the same samples at every step, whose kernel is then computed once."""

    def learnt(steps: int, field: KernelField, x: torch.Tensor, data: torch.Tensor, **settings: float):
        table = field.log_kernel(x, data)
        monkeypatch.setattr(KernelField, "log_kernel", lambda *_: table)
        balanced = BalancedField(field, data, **settings)
        batch = Batch(x, torch.arange(len(data)), progress=0.0)
        for _ in range(steps):
            observe(balanced, batch)
        return balanced.potential

    return learnt


def far_away(space: str, dtype: torch.dtype) -> tuple[KernelField, torch.Tensor, torch.Tensor]:
    """Samples and 9 data close together, and one more datum 60 nats away."""
    manifold, generator = SPACES[space][0], torch.Generator().manual_seed(0)
    centre, scale = torch.tensor([0.0, 0.0, 1.0]), 0.05
    cloud = centre + scale * torch.randn(34, 3, generator=generator)
    far = -centre if space == "sphere" else centre + torch.tensor([0.0, 0.0, math.pi])
    points = manifold.projx(torch.cat([cloud, far[None]])).to(dtype)
    return field_of(manifold, str(scale)), points[:25], points[25:]


@pytest.mark.parametrize(("space", "dtype"), [("plane", torch.float32), ("sphere", torch.float64)])
def test_data_out_of_reach_stay_bounded_and_attract_nobody(weights_after, space, dtype):
    field, x, data = far_away(space, dtype)
    potential = weights_after(10_000, field, x, data)
    assert float(potential[-1]) == 5
    assert float(potential.max() - potential.min()) < 10
    attraction = field(Batch(x, data, data_log_weight=potential)).attraction
    near = field(Batch(x, data[:-1], data_log_weight=potential[:-1])).attraction
    torch.testing.assert_close(attraction, near, atol=1e-4, rtol=1e-5)


def test_without_a_bound_the_datum_out_of_reach_attracts_its_share(weights_after):
    field, x, data = far_away("plane", torch.float64)
    potential = weights_after(2_000, field, x, data, limit=math.inf)
    assert float(potential[-1]) > 40
    shares = (field.log_kernel(x, data) + potential).softmax(1).mean(0)
    torch.testing.assert_close(shares, torch.full_like(shares, 0.1), atol=1e-3, rtol=0)


def test_a_bound_that_is_not_reached_changes_nothing(clouds):
    x, data = clouds
    bounded, free = (BalancedField(field_of(Euclidean()), data, limit=limit) for limit in (10.0, math.inf))
    for balanced in (bounded, free):
        learn(balanced, x, torch.arange(12), 200)
    assert torch.equal(bounded.potential, free.potential)
    batch = Batch(x, torch.arange(12), progress=0.0)
    assert torch.equal(bounded(batch).field, free(batch).field)


def test_data_within_the_bound_attract_equal_shares(weights_after):
    """The optimality conditions of the penalty |s_j - median(s)| (`BalancedField`)."""
    generator = torch.Generator().manual_seed(0)
    x, data = (torch.randn(n, 2, generator=generator, dtype=torch.float64) for n in (60, 21))
    data[:3] += 8
    potential = weights_after(3_000, field_of(Euclidean(), "0.3"), x, data, limit=4.0)
    shares = (-torch.cdist(x, data) / 0.3 + potential).softmax(1).mean(0)
    low, high = (potential == end for end in (-2, 2))
    assert high[:3].all()
    within = shares[~low & ~high]
    assert len(within) >= 11  # most of them: theirs is the median share
    torch.testing.assert_close(within, within.median().expand_as(within), atol=1e-4, rtol=0)
    assert (shares[high] <= within.min()).all()
    assert (shares[low] >= within.max()).all()


def test_weights_saved_without_a_bound_load_and_return_within_it(clouds):
    x, data = clouds
    free, bounded = (BalancedField(field_of(Euclidean()), data, limit=limit) for limit in (math.inf, 1.0))
    learn(free, x, torch.arange(12), 200)
    bounded.load_state_dict(free.state_dict())
    assert torch.equal(bounded.potential, free.potential)
    learn(bounded, x, torch.arange(12), 1)
    assert float(bounded.potential.abs().max()) == 0.5


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
    plain = field_of(Euclidean())
    balanced = BalancedField(plain, data, limit=100.0)  # the other mode is 40 nats away
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


@pytest.mark.parametrize("limit", [0.0, -1.0, math.nan])
def test_limits_that_are_not_positive_are_refused(limit):
    with pytest.raises(ValueError, match="limit"):
        BalancedField(field_of(Sphere()), torch.eye(3), limit=limit)
