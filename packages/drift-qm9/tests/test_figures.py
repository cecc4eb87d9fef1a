import sys

import matplotlib
import pytest
from drift_qm9 import molecules_figure, properties_figure
from matplotlib.figure import Figure
from matplotlib.image import imread

STRINGS = ["CCO", "OCC", "C", "C1CC", "", "C1CC1C#N", "c1cc[nH]c1"]


def assert_is_picture(path, least=200):
    image = imread(path)
    assert min(image.shape[:2]) >= least
    assert image.std() > 0.02
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_molecules(tmp_path):
    molecules_figure(STRINGS, frozenset({"CCO"}), tmp_path / "new" / "molecules.png")
    assert_is_picture(tmp_path / "new" / "molecules.png")
    width, height = imread(tmp_path / "new" / "molecules.png").shape[1::-1]
    assert (width, height) == (6 * 220, 220)  # four distinct molecules fit one row


def test_at_most_24_molecules_are_drawn(tmp_path):
    molecules_figure(["C" * i for i in range(1, 31)], frozenset(), tmp_path / "molecules.png")
    assert imread(tmp_path / "molecules.png").shape[:2] == (4 * 220, 6 * 220)


def test_no_molecules_are_a_figure_that_says_so(tmp_path):
    molecules_figure(["C1", ""], frozenset(), tmp_path / "molecules.png")
    assert_is_picture(tmp_path / "molecules.png")
    properties_figure(STRINGS, ["C1", ""], tmp_path / "molecules.png")
    assert_is_picture(tmp_path / "molecules.png")


def test_where_rdkit_cannot_draw_the_figure_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rdkit.Chem.Draw", None)
    molecules_figure(["CCO"], frozenset(), tmp_path / "molecules.png")
    assert imread(tmp_path / "molecules.png").std() > 0


def test_histograms_are_shares_that_sum_to_one(tmp_path, monkeypatch):
    shares = []
    stairs = matplotlib.axes.Axes.stairs

    def record(self, values, edges, **arguments):
        shares.append(values)
        return stairs(self, values, edges, **arguments)

    monkeypatch.setattr(matplotlib.axes.Axes, "stairs", record)
    properties_figure(STRINGS, [*STRINGS, "CCCCCCCCCCN"], tmp_path / "properties.png")
    assert_is_picture(tmp_path / "properties.png")
    assert len(shares) == 18
    assert [share.sum() for share in shares] == pytest.approx([1] * 18)


def test_a_failing_figure_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "properties.png"
    path.write_text("old")
    monkeypatch.setattr(Figure, "savefig", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        properties_figure(STRINGS, STRINGS, path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_figures_leave_pyplot_alone(tmp_path):
    import matplotlib.pyplot as plt

    before = dict(matplotlib.rcParams)
    properties_figure(STRINGS, STRINGS, tmp_path / "properties.png")
    assert plt.get_fignums() == []
    assert dict(matplotlib.rcParams) == before
