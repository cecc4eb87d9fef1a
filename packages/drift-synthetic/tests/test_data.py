"""Targets: exact densities by tests of goodness of fit, seeds, and the names that are accepted."""

import math

import numpy as np
import pytest
import torch
from drift_synthetic import SPACES, Checkerboard, SwissRoll, make_problem
from scipy import stats
from torch import Generator


def test_the_board_is_uniform_over_its_black_squares(generator):
    """Chi-square over a grid of 16 x 16 cells, 16 in each square; and no point in a white one."""
    board = Checkerboard(0.5)
    u = board.sample(64_000, generator).numpy()
    counts, *_ = np.histogram2d(*u.T, bins=16, range=[[-0.5, 0.5]] * 2)
    squares = counts.reshape(4, 4, 4, 4).sum(axis=(1, 3))
    black = np.add.outer(range(4), range(4)) % 2 == 0
    assert (squares[~black] == 0).all()
    assert (squares > 0).sum() == 8
    assert stats.chisquare(squares[black]).pvalue > 1e-3
    assert stats.chisquare(counts[counts > 0]).pvalue > 1e-3
    assert (counts > 0).sum() == 128


def test_black_is_where_the_density_is():
    board = Checkerboard(1.0)
    u = torch.tensor([[-0.75, -0.75], [-0.25, -0.75], [0.25, 0.25], [0.75, 0.25], [-1.1, -1.1], [1.1, 1.1]])
    assert board.in_black(u).tolist() == [True, False, True, False, False, False]
    grid = torch.cartesian_prod(*2 * (torch.linspace(-0.99, 0.99, 100),))
    inside = torch.zeros(len(grid), dtype=torch.bool)
    for corner in board.corners():
        inside |= ((grid >= corner) & (grid < corner + board.side)).all(dim=1)
    assert torch.equal(board.in_black(grid), inside)
    assert 0.49 < float(inside.double().mean()) < 0.51


def test_the_roll_follows_its_spiral(generator):
    """Unwound by its law, radius = r t / (4.5 pi) at angle t, t is uniform and the noise across Gaussian."""
    roll = SwissRoll(2.0)
    u = roll.sample(40_000, generator)
    radius, angle = u.norm(dim=1), torch.atan2(u[:, 1], u[:, 0])
    rough = radius * 4.5 * math.pi / 2
    t = angle + 2 * math.pi * ((rough - angle) / (2 * math.pi)).round()
    outer = t > 2 * math.pi  # where a turn is far from the centre, and its normal nearly radial
    across = (radius - 2 * t / (4.5 * math.pi))[outer]
    assert float(across.std()) == pytest.approx(0.06, rel=0.03)
    assert abs(float(across.mean())) < 0.002
    assert stats.kstest(t[outer].numpy(), "uniform", (2 * math.pi, 2.5 * math.pi)).pvalue > 1e-3
    assert float(outer.double().mean()) == pytest.approx(2.5 / 4, abs=0.01)
    assert float(radius.max()) < 2 + 5 * 0.06


def test_the_noiseless_spiral_begins_and_ends_where_it_should():
    ends = SwissRoll(1.0).spiral(torch.tensor([math.pi / 2, 4.5 * math.pi], dtype=torch.float64))
    expected = torch.tensor([[0.0, 1 / 9], [0.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(ends, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("target", ["checkerboard", "swiss-roll"])
def test_samples_lie_on_their_space_and_within_reach(target, space, generator):
    problem = make_problem(target, space.name)
    x = problem.sample(20_000, generator)
    torch.testing.assert_close(space.manifold.projx(x), x, rtol=0, atol=2e-7)
    u = space.chart(x)
    reach = {"plane": 1.5, "sphere": 2.3, "hyperboloid": 2.6}[space.name]
    assert float(u.norm(dim=1).max()) < reach
    if isinstance(problem.target, Checkerboard):
        assert float(problem.target.in_black(u).double().mean()) > 0.9999


def test_the_seed_determines_the_sample(space):
    problem = make_problem("swiss-roll", space.name)
    a, b, c = (problem.sample(50, Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert problem.sample(0, Generator()).shape == (0, len(space.columns))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("moons", "sphere"), "target of the sphere must be one of checkerboard, swiss-roll; got 'moons'"),
        (("swiss-roll", "cube"), "space must be one of plane, .*, mesh; got 'cube'"),
    ],
)
def test_unknown_names_are_refused(names, message):
    with pytest.raises(ValueError, match=message):
        make_problem(*names)


def test_every_space_has_its_name():
    assert {name: space.name for name, space in SPACES.items()} == {name: name for name in SPACES}
