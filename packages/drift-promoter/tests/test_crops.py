"""Crops cover a sequence and join to means; samplers of crop indices and of signals are uniform."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from drift_promoter.crops import Crops, crop_indices, signal_sampler
from drift_promoter.data import Windows
from torch import Generator

SIZES = [(12, 4), (11, 4), (13, 5), (9, 3), (7, 2), (6, 6), (250, 101)]


def windows(n: int, length: int, margin: int = 3) -> Windows:
    """Random promoters on both strands, with random signals."""
    rng = np.random.default_rng(0)
    width = length + 2 * margin
    bases = rng.integers(4, size=(n, width), dtype=np.uint8)
    signal = rng.exponential(size=(n, width, 2)).astype(np.float16)
    return Windows(bases, signal, ["1"] * n, np.arange(n) * 100, ["+-"[i % 2] for i in range(n)], margin)


@pytest.mark.parametrize(("length", "width"), SIZES, ids=str)
def test_crops_start_every_half_width_and_end_where_the_sequence_ends(length, width):
    crops = Crops(length, width)
    starts = [*range(0, length - width, width // 2), length - width]
    assert crops.starts().tolist() == starts
    assert len(crops) == len(starts)
    for reach in (0, 3):
        expected = [list(range(start, start + width + 2 * reach)) for start in starts]
        assert crops.indices(reach).tolist() == expected


@pytest.mark.parametrize(("length", "width"), SIZES, ids=str)
def test_neighbours_lie_in_one_crop(length, width):
    seen = {pair for row in Crops(length, width).indices().tolist() for pair in pairwise(row)}
    assert seen == {(i, i + 1) for i in range(length - 1)}


def test_cuts_are_crops_of_each_sequence_in_turn_with_zeros_outside():
    x, crops = torch.rand(3, 11, 2), Crops(11, 4)
    cut = crops.cut(x, 2).view(3, 5, 8, 2)
    for row, (i, start) in ((row, each) for row in range(3) for each in enumerate([0, 2, 4, 6, 7])):
        for j, at in enumerate(range(start - 2, start + 6)):
            expected = x[row, at] if 0 <= at < 11 else torch.zeros(2)
            assert torch.equal(cut[row, i, j], expected)
    assert torch.equal(crops.cut(x), cut[:, :, 2:6].flatten(0, 1))


@pytest.mark.parametrize(("length", "width"), SIZES, ids=str)
def test_joined_crops_are_means_over_those_that_cover_a_position(length, width):
    crops = Crops(length, width)
    v = torch.rand(2 * len(crops), width, 4, dtype=torch.float64)
    parts = v.view(2, len(crops), width, 4)
    for position, joined in enumerate(crops.join(v).unbind(1)):
        over = [(i, position - s) for i, s in enumerate(crops.starts().tolist()) if s <= position < s + width]
        expected = torch.stack([parts[:, i, at] for i, at in over]).mean(0)
        torch.testing.assert_close(joined, expected, rtol=1e-12, atol=0)
    x = torch.rand(2, length, 4)
    torch.testing.assert_close(crops.join(crops.cut(x)), x)


@pytest.mark.parametrize("width", [0, 1, 13])
def test_crops_that_do_not_fit_are_refused(width):
    with pytest.raises(ValueError, match=f"2 to 12 base pairs, got {width}"):
        Crops(12, width)


@pytest.mark.parametrize("n", [4, 10, 27])
def test_indices_cover_all_windows_before_any_comes_again(n):
    data = windows(10, 12)
    sample = crop_indices(data, 4)
    seen = sample(n, Generator().manual_seed(1))
    assert seen.shape == (n, 3)
    for i in range(0, n, 10):
        assert len(seen[i : i + 10, 0].unique()) == min(10, n - i)
    torch.testing.assert_close(sample(n, Generator().manual_seed(1)), seen)
    assert not torch.equal(sample(n, Generator().manual_seed(2)), seen)
    assert data.tokens(seen[:, 0], seen[:, 1]).shape == (n, 12)  # shifts are within the margins


def test_indices_are_all_shifts_and_starts_alike():
    seen = crop_indices(windows(10, 12), 4)(7 * 9 * 100, Generator().manual_seed(0))
    for column, values in ((0, range(10)), (1, range(-3, 4)), (2, range(9))):
        counts = [int((seen[:, column] == value).sum()) for value in values]
        assert sum(counts) == len(seen)
        mean = len(seen) / len(values)
        assert max(abs(count - mean) for count in counts) < 5 * math.sqrt(mean)
    assert set(crop_indices(windows(10, 12, margin=0), 12)(50, Generator())[:, 1:].flatten().tolist()) == {0}


def test_conditions_are_shifted_signals_of_training_windows():
    data = windows(10, 12)
    rows = torch.arange(10)
    known = {
        signal.numpy().tobytes(): (row, shift)
        for shift in range(-3, 4)
        for row, signal in enumerate(data.signals(rows, shift))
    }
    assert len(known) == 70
    sampled = signal_sampler(data)(10, Generator().manual_seed(0))
    found = [known[signal.numpy().tobytes()] for signal in sampled]
    assert sorted(row for row, _ in found) == list(range(10))
    assert len({shift for _, shift in found}) > 2
    assert torch.equal(signal_sampler(data)(10, Generator().manual_seed(0)), sampled)
