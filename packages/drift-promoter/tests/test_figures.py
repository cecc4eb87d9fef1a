import math

import pytest
import torch
from drift_promoter.figures import (
    around_peaks,
    information,
    kmer_figure,
    logo_figure,
    signal_figure,
)
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imread


@pytest.fixture
def windows(toy):
    rows = torch.arange(200)
    return toy.test.tokens(rows), toy.test.signals(rows)


def assert_is_picture(path, least=200):
    image = imread(path)
    assert min(image.shape[:2]) >= least
    assert image.std() > 0.02
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_sequence_that_never_varies_has_two_bits_less_the_bias_of_the_sample():
    tokens = torch.tensor([[0, 1, 3]] * 50)
    bits = 2 - 3 / (2 * 50 * math.log(2))
    expected = torch.zeros(3, 4, dtype=torch.float64)
    expected[[0, 1, 2], [0, 1, 3]] = bits
    torch.testing.assert_close(information(tokens), expected)


def test_information_of_two_letters_is_one_bit():
    tokens = torch.tensor([[0], [3]] * 5000)
    torch.testing.assert_close(
        information(tokens), torch.tensor([[0.5, 0, 0, 0.5]]).double(), atol=1e-3, rtol=0
    )


def test_random_letters_have_no_information_however_few(generator):
    """Without its correction each position would have 3 / (2 n ln 2) = 0.1 bits."""
    tokens = torch.randint(4, (20, 5000), generator=generator)
    assert information(tokens).sum(1).mean() < 0.05  # not 0, as negative estimates count as 0


def test_windows_are_aligned_at_the_highest_same_strand_signal():
    tokens = torch.arange(100).remainder(4).repeat(8, 1)
    signal = torch.zeros(8, 100, 2)
    peaks = {0: 50, 1: 30, 2: 95, 3: 40}  # 2 is too near to the end
    for row, at in peaks.items():
        signal[row, at, 0] = 5
    signal[4, 60, 0] = 1  # lower than the three quarters
    signal[5, 60, 1] = 9  # the other strand's
    found = around_peaks(tokens, signal, 10)
    assert found.shape == (3, 21)
    for row, at in zip(found, (50, 30, 40), strict=True):
        assert row.tolist() == [i % 4 for i in range(at - 10, at + 11)]
    assert around_peaks(tokens, torch.zeros(8, 100, 2), 10).shape == (0, 21)


def test_logos_stack_letters_up_to_their_information(windows, tmp_path, monkeypatch):
    boxes = []
    add = Axes.add_patch
    monkeypatch.setattr(
        Axes,
        "add_patch",
        lambda self, patch: (boxes.append(patch.get_path().get_extents()), add(self, patch)),
    )
    tokens, signal = windows
    logo_figure(tokens, signal, tokens[:1], torch.zeros(1, 128, 2), tmp_path / "new" / "logo.png")
    assert_is_picture(tmp_path / "new" / "logo.png")
    tops = {}
    for box in boxes:
        at = round((box.x0 + box.x1) / 2)
        tops[at] = max(tops.get(at, 0), box.y1)
    found = information(around_peaks(tokens, signal, 40)).sum(1)
    assert max(tops, key=tops.__getitem__) in range(-2, 4)  # the initiator
    for i, bits in enumerate(found.tolist(), start=-40):
        assert tops.get(i, 0) == pytest.approx(bits, abs=1e-6)


def test_kmers_of_both_sides_lie_where_their_frequencies_are(windows, tmp_path, monkeypatch):
    drawn = []
    scatter = Axes.scatter
    monkeypatch.setattr(
        Axes, "scatter", lambda self, x, y, **rest: (drawn.append((x, y)), scatter(self, x, y, **rest))[1]
    )
    tokens, _ = windows
    few = torch.zeros(3, 128, dtype=torch.int64)  # AAAAAA alone
    kmer_figure(tokens, tokens, few, tmp_path / "kmers.png")
    assert_is_picture(tmp_path / "kmers.png")
    (x, y), _, (same, other), _ = drawn
    assert y.max() == pytest.approx(1e6)
    assert y.unique().numel() == 2  # and half an occurrence of 369
    assert y.min() == pytest.approx(0.5e6 / (3 * 123))
    assert torch.equal(same, other)
    assert x.numel() == same.numel()


@pytest.mark.parametrize(("conditions", "draws"), [(1, 1), (3, 6)])
def test_signals_with_sequences(windows, conditions, draws, tmp_path):
    tokens, signal = windows
    samples = tokens[:conditions, None].repeat(1, draws, 1)
    signal_figure(signal[:conditions], tokens[:conditions], samples, tmp_path / "signal.png")
    assert_is_picture(tmp_path / "signal.png")


@pytest.mark.parametrize("length", [30, 61, 1024])
def test_close_ups_stay_inside_windows(length, tmp_path, generator):
    """Of a peak at the start, at the end, and none."""
    signal = torch.zeros(3, length, 2)
    signal[0, 0, 0] = signal[1, -1, 0] = 1
    tokens = torch.randint(4, (3, length), generator=generator)
    signal_figure(signal, tokens, tokens[:, None], tmp_path / "signal.png")
    assert_is_picture(tmp_path / "signal.png")


def test_a_failing_figure_leaves_what_was_there(windows, tmp_path, monkeypatch):
    path = tmp_path / "kmers.png"
    path.write_text("old")
    monkeypatch.setattr(Figure, "savefig", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        kmer_figure(windows[0], windows[0], windows[0], path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_figures_leave_pyplot_alone(windows, tmp_path):
    import matplotlib.pyplot as plt

    before = dict(plt.rcParams)
    logo_figure(*windows, *windows, tmp_path / "logo.png")
    assert plt.get_fignums() == []
    assert dict(plt.rcParams) == before
