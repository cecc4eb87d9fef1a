"""Kinds of signals: their features by plain sums, the nearest centre, and centres that k-means found."""

import math

import numpy as np
import pytest
import torch
from drift_promoter.data import Windows
from drift_promoter.kinds import SignalKinds, choose_kinds, features
from drift_promoter.similarity import REACH
from torch import Generator, Tensor


def drawn(n: int, length: int, seed: int = 0) -> Tensor:
    return torch.rand(n, length, 2, generator=Generator().manual_seed(seed)) ** 3


def around(signal: Tensor, start: int, length: int) -> list[float]:
    """Root of the mean signal of the window and of 1, 2, 4 and 8 parts around a stretch, track by track."""
    found = [math.sqrt(float(signal[:, track].mean())) for track in range(2)]
    reach = length + 2 * REACH
    for bins in (1, 2, 4, 8):
        for i in range(bins):
            low, high = (start - REACH + reach * j // bins for j in (i, i + 1))
            part = signal[max(0, low) : max(0, high)]
            found += [math.sqrt(float(part[:, track].sum()) / reach) for track in range(2)]
    return found


@pytest.mark.parametrize(("size", "length"), [(300, 8), (40, 5)])
def test_features_are_roots_of_means(size, length):
    signal, starts = drawn(3, size), torch.tensor([0, 7, size // 2, size - length])
    found = features(signal, starts, length)
    for row, i in ((row, i) for row in range(3) for i in range(4)):
        expected = around(signal[row], int(starts[i]), length)
        assert found[row, i].tolist() == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_a_silent_window_has_no_features():
    assert not features(torch.zeros(2, 50, 2), torch.tensor([0, 20]), 8).any()


def test_a_kind_is_the_nearest_centre():
    signal, starts = drawn(5, 200), torch.arange(0, 190, 10)
    seen = features(signal, starts, 8)
    kinds = SignalKinds(seen[:, ::6].flatten(0, 1)[:12] + 0.01, starts, 8)
    expected = (seen[:, :, None] - kinds.centres).norm(dim=-1).argmin(-1)
    assert torch.equal(kinds.of(signal), expected)
    assert len(kinds) == 12
    assert torch.equal(kinds.of(signal.double()), expected)


def made(signal: np.ndarray) -> Windows:
    n, width, _ = signal.shape
    bases = np.zeros((n, width), dtype=np.uint8)
    return Windows(bases, signal.astype(np.float16), ["1"] * n, np.arange(n), ["+"] * n, 0)


def test_signals_of_two_heights_are_two_kinds():
    signal = np.zeros((60, 300, 2))
    signal[::3] = 2.0
    data, starts = made(signal), torch.arange(100, 200, 10)
    kinds = choose_kinds(data, starts, 8, 2, seed=0)
    found = kinds.of(data.signals(torch.arange(60)))
    assert bool((found == found[:, :1]).all())
    assert len(found[::3].unique()) == len(found[1::3].unique()) == 1
    assert found[0, 0] != found[1, 0]
    again = choose_kinds(data, starts, 8, 2, seed=0)
    assert torch.equal(again.centres, kinds.centres)


def test_there_are_no_more_kinds_than_signals():
    silent = made(np.zeros((20, 64, 2)))
    assert len(choose_kinds(silent, torch.arange(0, 56, 4), 8, 64, seed=1)) == 1
