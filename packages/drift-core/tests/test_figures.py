"""Figures of a run: drawn whatever the log holds, written whole or not at all."""

import math

import matplotlib
import pytest
from drift_core.runs.figures import training_figure, written_figure
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imread


def picture(path):
    image = imread(path)
    assert min(image.shape[:2]) > 200
    assert image.std() > 0.02
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    return image


@pytest.mark.parametrize("loss", [1.0, 0.0, math.nan, math.inf, None])
def test_training_with_missing_keys_zeros_and_values_that_are_not_finite(loss, tmp_path):
    records = [{"step": 10 * i, "loss": loss, "drift_norm": 2.0, "clipped": 0.0} for i in range(5)]
    training_figure([*records, {"step": 50, "loss": 1.0}], tmp_path / "training.png")
    picture(tmp_path / "training.png")


def test_no_records_are_an_empty_figure(tmp_path):
    training_figure([], tmp_path / "training.png")
    picture(tmp_path / "training.png")


def test_curves_are_the_records(tmp_path, monkeypatch):
    drawn = {}
    plot = Axes.plot

    def record(axes, x, y, *, label, **style):
        drawn[label] = list(zip(x, y, strict=True))
        return plot(axes, x, y, label=label, **style)

    monkeypatch.setattr(Axes, "plot", record)
    training_figure([{"step": 1, "loss": 3.0, "ess": 7.0}, {"step": 2, "loss": None}], tmp_path / "a.png")
    assert drawn["loss"] == [(1, 3.0)]
    assert drawn["references"] == [(1, 7.0)]
    assert drawn["drift"] == []


def test_a_failing_figure_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "training.png"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), written_figure(path, 3.0):
        raise ZeroDivisionError
    monkeypatch.setattr(Figure, "savefig", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        training_figure([], path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_figures_leave_pyplot_alone(tmp_path):
    import matplotlib.pyplot as plt

    before = dict(matplotlib.rcParams)
    training_figure([], tmp_path / "training.png")
    assert plt.get_fignums() == []
    assert dict(matplotlib.rcParams) == before
