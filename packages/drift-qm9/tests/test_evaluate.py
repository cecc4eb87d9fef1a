import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from drift_qm9 import encode, evaluate, quality, split, to_smiles, total_variation
from drift_qm9.evaluate import MANY, SAMPLES, resample
from drift_qm9.metrics import unigrams
from rdkit.Chem import MolFromSmiles, rdFingerprintGenerator
from torch import Generator

FRACTIONS = ["valid", "unique_of_valid", "unique_of_all", "novel", "novel_of_unique", "valid_and_novel"]
DISTANCES = ["lengths_w1", "tokens_tv", "bigrams_tv", "rings_tv", "ring_sizes_tv", "frechet"]


@pytest.fixture
def few(monkeypatch, empty_cache):
    """A hundred strings in place of the 10,000: for what is not about their number."""
    monkeypatch.setattr(sys.modules["drift_qm9.evaluate"], "MANY", 100)


@pytest.fixture(scope="module")
def half(toy_smiles):
    """Data that are not complete: 3,000 of the toy molecules."""
    return split(np.array([encode(smiles) for smiles in toy_smiles[:3000]], dtype=np.uint8))


def sampler_of(strings, length=16):
    """A sampler that repeats the strings."""
    ids = torch.tensor([encode(string, length) for string in strings])
    return lambda n, generator: ids[torch.arange(n) % len(ids)]


def test_a_perfect_sampler_is_at_its_floor(toy):
    scores = evaluate(lambda n, generator: resample(toy, n, generator), toy, draws=6, seed=1)
    assert list(scores) == [*FRACTIONS, "coverage", *DISTANCES, "unique_of_10000", "nearest_train"]
    nearest = scores.pop("nearest_train")
    assert nearest.value == pytest.approx(nearest.floor, abs=0.05)  # about 100 molecules each
    once = scores.pop("unique_of_10000")
    of_many = 14_200 * (1 - (1 - 1 / 14_200) ** MANY)
    assert (once.value, once.floor) == (pytest.approx(of_many / MANY, rel=0.02),) * 2
    for score in scores.values():
        spread = np.hypot(score.std, score.floor_std)
        assert abs(score.value - score.floor) <= 4 * spread  # ten times the standard error
    assert scores["valid"].floor == 1
    # Uniform draws: of S molecules n draws reach S (1 - (1 - 1/S)^n), a tenth of which are not for training.
    reached = 14_200 * (1 - (1 - 1 / 14_200) ** SAMPLES)
    assert scores["coverage"].floor == pytest.approx(reached / 14_200, rel=0.02)
    assert scores["unique_of_all"].floor == pytest.approx(reached / SAMPLES, rel=0.02)
    assert scores["novel"].floor == pytest.approx(0.1 * reached / SAMPLES, rel=0.3)


def test_strings_of_carbons_are_valid_and_far_from_the_data(few, toy):
    chains = ["C" * i for i in range(1, 15)]
    scores = evaluate(sampler_of(chains), toy, draws=1)
    assert scores["valid"].value == 1
    assert scores["unique_of_all"].value == 14 / SAMPLES
    assert scores["coverage"].value == 6 / 14_200
    assert scores["valid"].std == 0
    for name in DISTANCES:
        assert scores[name].value > scores[name].floor + 10 * scores[name].floor_std
        assert scores[name].value > 3 * scores[name].floor


def test_values_are_those_of_the_metrics_over_the_draws(toy):
    seen = []

    def sampler(n, generator):
        seen.append(resample(replace(toy, complete=False), n, generator))
        seen[-1][:: len(seen) + 1] = 1  # empty strings
        return seen[-1]

    scores = evaluate(sampler, toy, draws=3, on="val")
    known = frozenset(to_smiles(toy.train))
    many, strings = to_smiles(seen.pop(1)), [to_smiles(tokens) for tokens in seen]
    assert [len(side) for side in (many, *strings)] == [MANY, *[SAMPLES] * 3]
    assert scores["unique_of_10000"].value == quality(many, known)["unique_of_all"]
    valid = [quality(side, known)["valid"] for side in strings]
    assert scores["valid"].value == pytest.approx(np.mean(valid))
    assert scores["valid"].std == pytest.approx(np.std(valid, ddof=1))
    assert scores["novel"].value == scores["valid_and_novel"].value == 0  # all are from the training split
    distances = [total_variation(unigrams(side), unigrams(to_smiles(toy.val))) for side in strings]
    assert scores["tokens_tv"].value == pytest.approx(np.mean(distances))


def test_without_a_molecule_only_distances_between_strings_are_defined(few, toy):
    scores = evaluate(sampler_of(["C1", "("]), toy, draws=2)
    assert [scores[name].value for name in (*FRACTIONS, "coverage", "unique_of_10000")] == [0] * 8
    assert scores["lengths_w1"].value > 5
    assert all(
        scores[name].value is None for name in ("rings_tv", "ring_sizes_tv", "frechet", "nearest_train")
    )


def test_new_molecules_are_compared_with_the_nearest_of_training(few, toy_smiles):
    data = split(np.array([encode(smiles) for smiles in toy_smiles[:400]], dtype=np.uint8))
    new = ["OCCCCO", "FC1CC1"]
    known = to_smiles(data.train)
    assert not {*new} & {*known}
    scores = evaluate(sampler_of([*new, known[0]], 32), data, draws=1)

    def bits(smiles):
        return {
            *rdFingerprintGenerator.GetMorganGenerator(2, fpSize=2048)
            .GetFingerprint(MolFromSmiles(smiles))
            .GetOnBits()
        }

    def similarity(a, b):
        return len(a & b) / len(a | b)

    expected = [max(similarity(bits(one), bits(other)) for other in known) for one in new]
    assert scores["nearest_train"].value == pytest.approx(np.mean(expected))


def test_a_data_set_that_is_not_complete_has_no_coverage_and_no_floor_of_novelty(few, half, toy_smiles):
    scores = evaluate(sampler_of(toy_smiles[3000:3100], 32), half, draws=2)
    assert "coverage" not in scores
    assert scores["novel"].value == pytest.approx(100 / SAMPLES)
    assert scores["novel"].floor is scores["valid_and_novel"].floor is None
    assert scores["novel"].floor_std is None
    assert scores["unique_of_all"].floor == 1  # training molecules, without replacement


def test_resampling_is_without_replacement_up_to_half_of_the_training_split():
    ids = np.arange(100, dtype=np.uint8)[:, None]
    data = split(ids)
    assert len(resample(data, 45, Generator()).unique()) == 45
    assert len(resample(data, 46, Generator().manual_seed(0)).unique()) < 46
    assert {*resample(data, 45, Generator()).flatten().tolist()} <= {*data.train.flatten().tolist()}
    whole = replace(data, complete=True)
    draws = resample(whole, 20_000, Generator().manual_seed(0)).flatten().bincount(minlength=100)
    assert draws.float().mean() == 200
    assert 8 < draws.float().std() < 20  # of a uniform law: 14


def test_evaluation_depends_on_the_seed_alone(few, half):
    def sampler(n, generator):
        return resample(half, n, generator)

    first, again, other = (evaluate(sampler, half, draws=1, seed=seed) for seed in (3, 3, 4))
    assert first == again
    assert first["frechet"] != other["frechet"]


def test_no_draws_are_refused(toy):
    with pytest.raises(ValueError, match="`draws` must be at least 1, got 0"):
        evaluate(sampler_of(["C"]), toy, draws=0)


def test_floors_come_from_the_cache_and_are_the_same(few, toy, half, toy_smiles, monkeypatch):
    for data, length in ((toy, 16), (half, 32)):
        sampler = sampler_of(toy_smiles[3000:3100], length)
        first = evaluate(sampler, data, draws=2)
        with monkeypatch.context() as patch:
            patch.setattr(sys.modules["drift_qm9.evaluate"], "resample", None)  # not called again
            assert evaluate(sampler, data, draws=2) == first
