"""Evaluation: a perfect generator is at its floor, others are not, and seeds say which draws are compared."""

import numpy as np
import pytest
import torch
from drift_core.seeds import generator_for
from drift_synthetic import make_problem
from drift_synthetic.evaluate import evaluate, floor
from drift_synthetic.metrics import sliced_wasserstein

BOARD = make_problem("checkerboard", "sphere")


def constant(n, generator):
    return torch.tensor([[0.0, 0.0, 1.0]]).expand(n, 3)


FEW = 100


@pytest.fixture(autouse=True)
def nothing_cached():
    floor.cache_clear()
    yield
    floor.cache_clear()


@pytest.fixture
def quick(monkeypatch):
    """What is tested here is the bookkeeping: few points, and no classifier."""
    monkeypatch.setattr("drift_synthetic.evaluate.SIZE", FEW)
    monkeypatch.setattr("drift_synthetic.evaluate.c2st", lambda x, y: 0.5)


def test_a_perfect_generator_is_at_its_floor_and_another_target_is_not():
    perfect = evaluate(BOARD.sample, BOARD, draws=1)
    roll = evaluate(make_problem("swiss-roll", "sphere").sample, BOARD, draws=1)
    assert list(perfect) == ["sliced_wasserstein", "tile_accuracy", "c2st"]
    for name in perfect:
        assert roll[name].floor == perfect[name].floor
    assert perfect["sliced_wasserstein"].value < 2 * perfect["sliced_wasserstein"].floor
    assert perfect["tile_accuracy"].value > 0.999 < perfect["tile_accuracy"].floor
    assert perfect["c2st"].value == pytest.approx(0.5, abs=0.03)
    assert roll["sliced_wasserstein"].value > 3 * roll["sliced_wasserstein"].floor
    assert roll["tile_accuracy"].value < 0.7
    assert roll["c2st"].value > 0.7


def test_rolls_have_no_tiles(quick):
    roll = make_problem("swiss-roll", "hyperboloid")
    assert set(evaluate(roll.sample, roll, draws=1)) == {"sliced_wasserstein", "c2st"}


def test_values_are_those_of_the_metric_over_the_draws(quick):
    seen = []

    def sampler(n, generator):
        seen.append(BOARD.sample(n, generator))
        return seen[-1]

    result = evaluate(sampler, BOARD, draws=3, seed=7)["sliced_wasserstein"]
    references = [BOARD.sample(FEW, generator_for(7, 10, k, 0)) for k in range(3)]
    values = [sliced_wasserstein(x, y) for x, y in zip(seen, references, strict=True)]
    assert [len(x) for x in seen] == [FEW] * 3
    assert result.value == pytest.approx(np.mean(values))
    assert result.std == pytest.approx(np.std(values, ddof=1))


def test_draws_depend_on_the_seed_and_the_stream(quick):
    first, again, other = (evaluate(constant, BOARD, draws=1, seed=seed) for seed in (3, 3, 4))
    chosen = evaluate(constant, BOARD, draws=1, seed=3, on="val")
    assert first == again
    floors = {r["sliced_wasserstein"].floor for r in (first, other, chosen)}
    assert len(floors) == 3
    assert first["sliced_wasserstein"].std == first["sliced_wasserstein"].floor_std == 0


def test_the_classifier_is_asked_about_three_draws(quick, monkeypatch):
    asked = []
    monkeypatch.setattr("drift_synthetic.evaluate.c2st", lambda x, y: asked.append(len(x)) or 0.5)
    evaluate(BOARD.sample, BOARD, draws=4)
    assert asked == [FEW] * 6
    evaluate(constant, BOARD, draws=1)
    assert len(asked) == 7  # the floor is cached


def test_floors_are_the_same_from_the_cache(quick, monkeypatch):
    first = evaluate(BOARD.sample, BOARD, draws=2)
    monkeypatch.setattr("drift_synthetic.evaluate.floor", None)  # not called again
    assert evaluate(BOARD.sample, BOARD, draws=2) == first


@pytest.mark.parametrize(
    ("sampler", "draws", "message"),
    [
        (lambda n, _: torch.full((n, 3), torch.nan), 1, "samples: row 0 is not on the sphere"),
        (lambda n, _: torch.ones(n, 3), 1, "samples: row 0 is not on the sphere"),
        (lambda n, _: torch.ones(n, 2), 1, r"points of the sphere have shape \['n', 3\], got \[100, 2\]"),
        (constant, 0, "`draws` must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_scored_is_refused(quick, sampler, draws, message):
    with pytest.raises(ValueError, match=message):
        evaluate(sampler, BOARD, draws=draws)
