"""Condition clusters: features by plain sums, the nearest centre, and centres that k-means found."""

import math

import numpy as np
import pytest
import torch
from drift_promoter.clusters import ConditionClusters, fit_clusters, multiscale_features
from drift_promoter.crops import Crops
from drift_promoter.data import Windows
from drift_promoter.similarity import REACH
from torch import Generator, Tensor


def random_signals(n: int, length: int, seed: int = 0) -> Tensor:
    return torch.rand(n, length, 2, generator=Generator().manual_seed(seed)) ** 3


def around(signal: Tensor, start: int, width: int) -> list[float]:
    """Root of the mean signal of the window and of 1, 2, 4 and 8 parts around a crop, track by track."""
    found = [math.sqrt(float(signal[:, track].mean())) for track in range(2)]
    reach = width + 2 * REACH
    for bins in (1, 2, 4, 8):
        for i in range(bins):
            low, high = (start - REACH + reach * j // bins for j in (i, i + 1))
            part = signal[max(0, low) : max(0, high)]
            found += [math.sqrt(float(part[:, track].sum()) / reach) for track in range(2)]
    return found


@pytest.mark.parametrize(("size", "width"), [(300, 8), (40, 5)])
def test_features_are_roots_of_means(size, width):
    signal, starts = random_signals(3, size), torch.tensor([0, 7, size // 2, size - width])
    found = multiscale_features(signal, starts, width)
    for row, i in ((row, i) for row in range(3) for i in range(4)):
        expected = around(signal[row], int(starts[i]), width)
        assert found[row, i].tolist() == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_a_silent_window_has_no_features():
    assert not multiscale_features(torch.zeros(2, 50, 2), torch.tensor([0, 20]), 8).any()


def test_a_signal_belongs_to_the_nearest_centre():
    signal, crops = random_signals(5, 200), Crops(200, 20)
    seen = multiscale_features(signal, torch.arange(0, 190, 10), 20)
    clusters = ConditionClusters(seen[:, ::6].flatten(0, 1)[:12] + 0.01, crops)
    expected = (seen[:, :, None] - clusters.centres).norm(dim=-1).argmin(-1)
    assert torch.equal(clusters.assign(signal), expected)
    assert len(clusters) == 12
    assert torch.equal(clusters.assign(signal.double()), expected)
    assert torch.equal(clusters.assign(signal, torch.tensor([30, 100])), expected[:, [3, 10]])


def made(signal: np.ndarray) -> Windows:
    n, width, _ = signal.shape
    bases = np.zeros((n, width), dtype=np.uint8)
    return Windows(bases, signal.astype(np.float16), ["1"] * n, np.arange(n), ["+"] * n, 0)


def test_signals_of_two_heights_are_two_clusters():
    signal = np.zeros((60, 300, 2))
    signal[::3] = 2.0
    data, crops = made(signal), Crops(300, 20)
    clusters = fit_clusters(data, crops, 2, seed=0)
    found = clusters.assign(data.signals(torch.arange(60)))[:, 10:19]
    assert bool((found == found[:, :1]).all())
    assert len(found[::3].unique()) == len(found[1::3].unique()) == 1
    assert found[0, 0] != found[1, 0]
    again = fit_clusters(data, crops, 2, seed=0)
    assert torch.equal(again.centres, clusters.centres)


def test_there_are_no_more_clusters_than_signals():
    silent = made(np.zeros((20, 64, 2)))
    assert len(fit_clusters(silent, Crops(64, 8), 64, seed=1)) == 1
