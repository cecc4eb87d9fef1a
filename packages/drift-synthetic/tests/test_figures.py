"""Figures are pictures, written whole or not at all, and pyplot is left alone."""

import matplotlib
import numpy as np
import pytest
import torch
from drift_core import Laplace, drift
from drift_synthetic import make_problem
from drift_synthetic.figures import (
    DATA,
    Row,
    chart_axes,
    extent,
    field_figure,
    grid_figure,
    lattice,
    scatter,
)
from matplotlib.figure import Figure
from matplotlib.image import imread

BOARD, ROLL = make_problem("checkerboard", "sphere"), make_problem("swiss-roll", "hyperboloid")


def assert_is_picture(path):
    image = imread(path)
    assert min(image.shape[:2]) > 200
    assert image.std() > 0.05
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_rows_may_differ_in_problem_and_length(generator, tmp_path):
    rows = [
        Row("board", BOARD, {DATA: BOARD.sample(300, generator), "Samples": BOARD.sample(20, generator)}),
        Row("roll", ROLL, {DATA: ROLL.sample(300, generator)}),
    ]
    grid_figure(rows, tmp_path / "new" / "grid.png")
    assert_is_picture(tmp_path / "new" / "grid.png")


def test_rows_are_named_and_columns_have_titles_once(generator, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, part, **_: (drawn.append(figure), part.touch()))
    panels = {DATA: BOARD.sample(9, generator), "Samples": BOARD.sample(9, generator)}
    torus = make_problem("checkerboard", "torus")  # which has two views
    last = {DATA: torus.sample(9, generator)}
    rows = [Row("first", BOARD, panels), Row("second", BOARD, panels), Row("third", torus, last)]
    grid_figure(rows, tmp_path / "grid.png")
    axes = drawn[0].axes
    assert [a.get_ylabel() for a in axes] == ["first", "", "second", "", "third", ""]
    assert [a.get_title() for a in axes] == [DATA, "Samples", "", "", DATA, ""]


@pytest.mark.parametrize("problem", [BOARD, ROLL], ids=["board", "roll"])
def test_fields(problem, generator, tmp_path):
    x, data = lattice(problem, 8), problem.sample(200, generator)
    fields = {
        name: drift(problem.space.manifold, Laplace(0.5), x, data, data[:50] + 0, direction=name)
        for name in ("displacement", "gradient")
    }
    field_figure(problem, x, {**fields, "none": torch.zeros_like(x)}, data, tmp_path / "field.png")
    assert_is_picture(tmp_path / "field.png")


def test_the_lattice_is_square_in_the_chart_and_holds_the_target(space, generator):
    problem = make_problem("checkerboard", space.name)
    u = space.chart(lattice(problem, 5)).reshape(5, 5, 2)
    ticks = torch.linspace(-1, 1, 5) * extent(problem)
    torch.testing.assert_close(u[:, 2, 0], ticks, rtol=0, atol=1e-5)
    torch.testing.assert_close(u[3, :, 1], ticks, rtol=0, atol=1e-5)
    assert float(space.chart(problem.sample(1000, generator)).abs().max()) < extent(problem)


def test_points_are_drawn_where_the_chart_has_them(generator):
    axes = Figure().subplots()
    points = BOARD.sample(12_000, generator)
    chart_axes(axes, BOARD)
    scatter(axes, BOARD, points, "k")
    drawn = np.asarray(axes.collections[0].get_offsets())
    np.testing.assert_allclose(drawn, BOARD.space.chart(points[::3]).numpy())
    corners = {patch.get_xy() for patch in axes.patches}
    assert corners == {tuple(corner.tolist()) for corner in BOARD.target.corners()}


def test_a_failing_figure_leaves_what_was_there(generator, tmp_path, monkeypatch):
    path = tmp_path / "training.png"
    path.write_text("old")
    monkeypatch.setattr(Figure, "savefig", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        grid_figure([Row("a", BOARD, {"b": BOARD.sample(9, generator)})], path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_figures_leave_pyplot_alone(generator, tmp_path):
    import matplotlib.pyplot as plt

    before = dict(matplotlib.rcParams)
    grid_figure([Row("a", BOARD, {"b": BOARD.sample(9, generator)})], tmp_path / "a.png")
    assert plt.get_fignums() == []
    assert dict(matplotlib.rcParams) == before
