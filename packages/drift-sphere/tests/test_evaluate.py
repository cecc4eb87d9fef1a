import sys
from dataclasses import astuple

import numpy as np
import pytest
import torch
from drift_sphere import evaluate, load, metrics, mmd, sinkhorn, toy
from drift_sphere.evaluate import resample, thin
from drift_sphere.metrics import transport_cost
from torch import Generator

NAMES = ["mmd", "mmd2_unbiased", "sinkhorn", "sinkhorn_cost", "nn_accuracy"]


@pytest.fixture(scope="module")
def toy_data():
    train, test = toy(1000, Generator().manual_seed(1)).float().split([900, 100])
    return train, test


def test_a_perfect_generator_is_at_its_floor_and_noise_is_not(uniform):
    # Few training points would be a law of their own, which 4,096 points of `mmd2_unbiased` tell apart.
    train, test = toy(20_300, Generator().manual_seed(1)).float().split([20_000, 300])
    perfect = evaluate(lambda n, generator: toy(n, generator).float(), train, test, draws=6)
    noise = evaluate(uniform, train, test, draws=2)
    assert list(perfect) == NAMES
    for name in NAMES:
        value, std, floor, floor_std = astuple(perfect[name])
        assert abs(value - floor) < 3 * np.hypot(std, floor_std)
        assert noise[name].value > floor + 2 * floor_std
        assert noise[name].floor == pytest.approx(floor, abs=5 * floor_std)


def test_values_are_those_of_the_metric_over_the_draws(toy_data):
    train, test = toy_data
    seen = []

    def sampler(n, generator):
        seen.append(toy(n, generator).float())
        return seen[-1]

    result = evaluate(sampler, train, test, draws=3)
    values = [mmd(x, test) for x in seen[::4]]
    assert [len(x) for x in seen] == [100, 4096, 100, 100] * 3
    # Those of the test points in another order, which round otherwise.
    assert result["mmd"].value == pytest.approx(np.mean(values), abs=1e-7)
    assert result["mmd"].std == pytest.approx(np.std(values, ddof=1), abs=1e-7)
    order = thin(test, 100, seed=0)
    costs = [sinkhorn(x, order) for x in seen[2::4]]
    assert result["sinkhorn"].value == pytest.approx(np.mean(costs), abs=1e-4)
    raw = [transport_cost(x, order) for x in seen[2::4]]  # of the samples of the divergence
    assert result["sinkhorn_cost"].value == pytest.approx(np.mean(raw), abs=1e-4)


def test_every_transport_cost_is_computed_once(toy_data, uniform, monkeypatch):
    calls = []
    monkeypatch.setattr(metrics, "transport_cost", lambda x, y: calls.append(1) or 1.0)
    monkeypatch.setattr(sys.modules["drift_sphere.evaluate"], "transport_cost", metrics.transport_cost)
    evaluate(uniform, *toy_data, draws=2)
    # The test points once; at each draw samples and the floor, against the test points and themselves.
    assert len(calls) == 1 + 2 * 2 * 2
    evaluate(uniform, *toy_data, draws=2)
    assert len(calls) == 9 + 1 + 2 * 2  # the floor is in the cache


def test_the_floor_from_the_cache_is_the_floor(toy_data, uniform):
    computed, kept = (evaluate(uniform, *toy_data, draws=2) for _ in range(2))
    assert computed == kept


def test_evaluation_depends_on_the_seed_alone_and_the_floor_not_on_the_sampler(toy_data, uniform):
    first, again, other = (evaluate(uniform, *toy_data, draws=1, seed=seed) for seed in (3, 3, 4))
    assert first == again != other
    assert first["mmd"].std == first["mmd"].floor_std == 0
    constant = evaluate(lambda n, _: torch.tensor([[0.0, 0.0, 1.0]]).expand(n, 3), *toy_data, draws=1, seed=3)
    assert [constant[name].floor for name in NAMES] == [first[name].floor for name in NAMES]


def test_evaluation_gives_the_threads_back(toy_data, uniform):
    torch.set_num_threads(2)
    evaluate(uniform, *toy_data, draws=1)
    with pytest.raises(ValueError, match="too few"):
        evaluate(uniform, *toy_data, draws=0)
    assert torch.get_num_threads() == 2


def test_resampling_is_without_replacement_up_to_half(generator):
    points = toy(100, generator)
    half = resample(points, 50, generator)
    assert len(half.unique(dim=0)) == 50
    more = resample(points, 4096, generator)
    assert more.shape == (4096, 3)
    assert len(more.unique(dim=0)) == 100
    assert torch.equal(thin(points, 200, 0).unique(dim=0), points.unique(dim=0))
    assert len(thin(points, 30, 0)) == 30


@pytest.mark.parametrize(
    ("sampler", "arguments", "message"),
    [
        (lambda n, _: torch.full((n, 3), torch.nan), {}, "samples: row 0 .* not on the unit sphere"),
        (lambda n, _: torch.ones(n, 3), {}, "samples: row 0 .* not on the unit sphere"),
        (lambda n, _: torch.eye(3), {"draws": 0}, "0 draws"),
        (lambda n, _: torch.eye(3), {"test": torch.eye(3)[:1]}, "1 test points are too few"),
        (lambda n, _: torch.eye(3), {"train": torch.ones(9, 3)}, "training points: row 0"),
    ],
)
def test_bad_samples_and_arguments_are_refused(toy_data, sampler, arguments, message):
    train, test = toy_data
    with pytest.raises(ValueError, match=message):
        evaluate(sampler, **({"train": train, "test": test, "draws": 1} | arguments))


# Means and standard deviations over 20 splits of the floor of the published MMD, measured elsewhere.
FLOORS = {
    "volcano": (0.116, 0.034),
    "earthquake": (0.044, 0.012),
    "fire": (0.028, 0.009),
    "flood": (0.046, 0.013),
}


@pytest.mark.parametrize("name", FLOORS)
def test_the_floor_of_the_published_metric(name, earth_dir):
    values = []
    for seed in range(20):
        train, _, test = load(name, data_dir=earth_dir, split_seed=seed)
        values.append(mmd(resample(train, len(test), Generator().manual_seed(seed)), test))
    mean, std = FLOORS[name]
    assert abs(np.mean(values) - mean) < 3 * std * (2 / 20) ** 0.5  # both means are over 20 splits
