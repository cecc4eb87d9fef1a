"""Statistics against closed forms and brute force."""

import math

import ot
import pytest
import torch
from drift_synthetic import Checkerboard
from drift_synthetic.metrics import PROJECTIONS, c2st, sliced_wasserstein, tile_accuracy
from torch import Generator


def test_sliced_wasserstein_of_a_shift_has_its_closed_form(generator):
    """Projections of x and x + a differ by <a, theta>: the mean square is |a|^2 / d, rooted at last."""
    x, a = torch.randn(300, 3, generator=generator), torch.tensor([3.0, 0.0, 4.0])
    assert sliced_wasserstein(x, x + a) == pytest.approx(5 / math.sqrt(3), rel=0.05)
    assert sliced_wasserstein(x, x) == 0
    assert sliced_wasserstein(x, x.flip(0)) == pytest.approx(0, abs=1e-6)


def test_sliced_wasserstein_is_that_of_sorted_projections(generator):
    """Of points on a line through the origin: W2 of the line times the root of the mean of cos^2."""
    s, t = torch.randn(2, 400, generator=generator, dtype=torch.float64)
    line = torch.tensor([0.6, 0.8], dtype=torch.float64)
    w2 = float((s.sort().values - (2 * t + 1).sort().values).square().mean().sqrt())
    found = sliced_wasserstein(s[:, None] * line, (2 * t + 1)[:, None] * line)
    assert found == pytest.approx(w2 / math.sqrt(2), rel=0.05)


def test_sliced_wasserstein_is_that_of_pot(generator):
    x, y = torch.randn(2, 300, 3, generator=generator, dtype=torch.float64)
    pot = ot.sliced_wasserstein_distance(x.numpy(), y.numpy(), n_projections=PROJECTIONS, seed=0)
    assert sliced_wasserstein(x, y) == pytest.approx(pot, rel=1e-12)


def test_sliced_wasserstein_takes_unequal_sizes_and_repeats_itself(generator):
    x, y = torch.randn(100, 3, generator=generator), torch.randn(57, 3, generator=generator)
    assert sliced_wasserstein(x, y) == sliced_wasserstein(x, y)
    assert sliced_wasserstein(x, y) == pytest.approx(sliced_wasserstein(y, x))


def test_tile_accuracy_is_a_share(generator):
    board = Checkerboard(2.0)
    u = board.sample(1000, generator)
    assert tile_accuracy(board, u) == 1
    assert tile_accuracy(board, torch.cat([u, u + board.side * torch.tensor([1.0, 0.0])])) == 0.5
    uniform = 4 * torch.rand(20_000, 2, generator=generator) - 2
    assert tile_accuracy(board, uniform) == pytest.approx(0.5, abs=0.02)


def test_c2st_is_half_for_one_law_and_the_best_accuracy_where_that_is_known():
    """Of N(0, 1) and N(a, 1) the best classifier cuts half-way: accuracy Phi(a / 2)."""
    draws = [torch.randn(1500, 2, generator=Generator().manual_seed(seed)) for seed in range(3)]
    assert c2st(draws[0], draws[1]) == pytest.approx(0.5, abs=0.03)
    best = (1 + math.erf(0.5 / math.sqrt(2))) / 2
    assert c2st(draws[0], draws[1] + torch.tensor([1.0, 0.0])) == pytest.approx(best, abs=0.03)
    assert c2st(draws[0], draws[2] + 100) == 1


def test_c2st_sees_the_white_squares(generator):
    """A uniform law on the board, against its black squares: the best accuracy is 3/4."""
    board = Checkerboard(1.0)
    uniform = 2 * torch.rand(2000, 2, generator=generator) - 1
    assert 0.6 < c2st(uniform, board.sample(2000, generator)) < 0.77
