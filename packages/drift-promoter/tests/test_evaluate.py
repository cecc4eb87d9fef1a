import dataclasses
import sys

import numpy as np
import pytest
import torch
from drift_core.runs.metrics import Metric
from drift_promoter.data import Promoters, Windows
from drift_promoter.evaluate import Measure, evaluate
from drift_promoter.metrics import kmer_correlation, kmer_counts

LENGTHS = ("kmer_correlation", *(f"kmer{k}_correlation" for k in (3, 4, 5, 7, 8)))
DISTANCES = ("bases_tv", "gc_w1", "cpg_w1")
OTHERS = ("distinct", "novelty", "conditioning", "conditioning_shuffled", "nearest_train")
PLACEMENT = ("motif_placement", "motif_placement_shuffled")


def everything(windows):
    rows = torch.arange(len(windows))
    return windows.tokens(rows), windows.signals(rows)


def matching(windows):
    """A generator that looks up the sequence of each signal."""
    tokens, signals = everything(windows)
    keys = {signal.numpy().tobytes(): row for row, signal in enumerate(signals)}

    def draw(signals, generator):
        return tokens[[keys[signal.numpy().tobytes()] for signal in signals]]

    return draw


def unconditional(windows):
    """A generator that draws from windows, whatever the signal."""
    tokens, _ = everything(windows)

    def draw(signals, generator):
        return tokens[torch.randperm(len(tokens), generator=generator)[: len(signals)]]

    return draw


def letters(signals, generator):
    """A generator of independent letters."""
    return torch.randint(4, signals.shape[:2], generator=generator)


def first(windows, n):
    return dataclasses.replace(
        windows,
        bases=windows.bases[:n],
        signal=windows.signal[:n],
        chrom=windows.chrom[:n],
        tss=windows.tss[:n],
        strand=windows.strand[:n],
    )


def test_real_windows_are_at_the_floor(toy):
    scores = evaluate(matching(toy.val), Promoters(toy.train, toy.test, toy.val, motifs=True), draws=2)
    assert list(scores) == [*LENGTHS, *DISTANCES, *OTHERS[:-1], *PLACEMENT, OTHERS[-1]]
    assert scores["kmer_correlation"].value > 0.9999  # all windows, against themselves
    assert scores["gc_w1"].value < 1e-9
    assert scores["motif_placement"].value == 1 == scores["motif_placement"].floor
    assert scores["conditioning"].value == pytest.approx(1, abs=0.15)
    assert scores["conditioning"].floor == pytest.approx(1, abs=0.1)
    assert scores["distinct"].floor == 1


def test_what_ignores_the_signal_scores_zero_though_all_else_is_at_its_floor(toy):
    scores = evaluate(unconditional(toy.train), toy, draws=6)
    for name in (*LENGTHS, *DISTANCES):
        score = scores[name]
        assert abs(score.value - score.floor) < 4 * np.hypot(score.std, score.floor_std)
    assert abs(scores["conditioning"].value) < 0.06
    assert abs(scores["conditioning_shuffled"].floor) < 0.06
    for name in ("motif_placement", "motif_placement_shuffled"):
        assert scores[name].value < 0.05
    assert scores["motif_placement_shuffled"].floor < 0.05


def test_independent_letters_are_far_from_the_data(toy):
    scores = evaluate(letters, toy, draws=2)
    for name in LENGTHS:
        assert scores[name].value < scores[name].floor - 0.2
    for name in DISTANCES:
        assert scores[name].value > scores[name].floor + 4 * scores[name].floor_std
    assert scores["novelty"].value == 1


def test_copies_of_training_windows_are_not_novel(toy):
    few = Promoters(first(toy.train, 2000), toy.val, toy.test)
    scores = evaluate(unconditional(few.train), few, draws=1)
    assert scores["novelty"].value == 0
    assert scores["novelty"].floor > 0.99  # held-out windows
    assert scores["nearest_train"].value == 0
    assert 0.3 < scores["nearest_train"].floor < 0.75  # 3 / 4 are unrelated letters
    same = evaluate(
        lambda signals, generator: toy.test.tokens(torch.zeros(len(signals)).long()), few, draws=1
    )
    assert same["distinct"].value == 1 / 1000
    assert set(scores) == {*LENGTHS, *DISTANCES, *OTHERS}  # these data claim no motifs


def test_values_are_those_of_the_metrics_over_the_draws(toy):
    seen = []

    def draw(signals, generator):
        seen.append(letters(signals, generator))
        return seen[-1]

    scores = evaluate(draw, toy, draws=3, on="val")
    assert [tokens.shape for tokens in seen] == [(1000, 128)] * 3
    real = kmer_counts(everything(toy.val)[0], 6)
    values = [kmer_correlation(kmer_counts(tokens, 6), real) for tokens in seen]
    assert scores["kmer_correlation"].value == pytest.approx(np.mean(values))
    assert scores["kmer_correlation"].std == pytest.approx(np.std(values, ddof=1))


def test_signals_are_of_a_random_set_of_held_out_windows(toy, monkeypatch):
    # The package's attribute of this name is the function.
    monkeypatch.setattr(sys.modules["drift_promoter.evaluate"], "SAMPLES", 100)
    everyone = {signal.numpy().tobytes() for signal in everything(toy.test)[1]}
    seen = []

    def draw(signals, generator):
        seen.append({signal.numpy().tobytes() for signal in signals})
        return letters(signals, generator)

    evaluate(draw, toy, draws=2)
    assert [len(signals) for signals in seen] == [100, 100]
    assert seen[0] | seen[1] <= everyone
    assert len(seen[0] & seen[1]) < 50


def test_evaluation_depends_on_the_seed_alone(toy):
    first, again, other = (evaluate(letters, toy, draws=1, seed=seed) for seed in (3, 3, 4))
    assert first == again
    assert first["kmer_correlation"] != other["kmer_correlation"]
    assert first["kmer_correlation"].std == 0


def test_without_signals_there_is_no_conditioning():
    bases = np.random.default_rng(0).integers(4, size=(90, 64), dtype=np.uint8)
    parts = [
        Windows(some, np.zeros((30, 64, 2), np.float16), ["1"] * 30, np.arange(30), ["+"] * 30, margin=0)
        for some in np.split(bases, 3)
    ]
    scores = evaluate(letters, Promoters(*parts), draws=2)
    assert scores["conditioning"] == Metric(None, None, None, None)
    assert scores["kmer3_correlation"].std > 0


def test_what_cannot_be_evaluated_is_refused(toy):
    with pytest.raises(ValueError, match="`draws` must be at least 1, got 0"):
        evaluate(letters, toy, draws=0)
    empty = Promoters(toy.train, first(toy.val, 0), toy.test)
    with pytest.raises(ValueError, match=r"no windows to evaluate on .*'val'"):
        evaluate(letters, empty, on="val")


def test_floors_come_from_the_cache_and_are_those_of_the_data(toy, monkeypatch, empty_cache):
    small = Promoters(first(toy.train, 900), toy.val, first(toy.test, 300), motifs=True)
    computed = evaluate(letters, small, draws=2)
    with monkeypatch.context() as patch:
        patch.setattr(Measure, "floor", None)  # not called again
        assert evaluate(letters, small, draws=2) == computed
    other = dataclasses.replace(small, train=first(toy.train, 901))
    assert evaluate(letters, other, draws=2)["kmer_correlation"].floor != computed["kmer_correlation"].floor
    one_track = dataclasses.replace(
        small,
        train=dataclasses.replace(small.train, tracks=1),
        test=dataclasses.replace(small.test, tracks=1),
    )
    assert evaluate(letters, one_track, draws=2)["conditioning"].floor != computed["conditioning"].floor
