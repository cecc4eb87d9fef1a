"""The scripts of the gallery: short, a few seconds each, ending in a picture, leaving no files behind."""

import runpy
from pathlib import Path

import matplotlib
import pytest

ROOT = Path(__file__).parents[1]
GALLERY = ROOT / "packages/drift-core/examples/gallery"
SCRIPTS = sorted(GALLERY.glob("plot_*.py"))
LINES = 60


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem.removeprefix("plot_"))
def test_a_script_draws_a_picture(script, tmp_path, monkeypatch):
    text = script.read_text()
    assert len(text.splitlines()) <= LINES
    title, rule, prose = text.removeprefix('"""\n').split("\n", 2)
    assert rule == "=" * len(title)
    assert prose.strip()
    assert "\n# %%\n# " in text
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    monkeypatch.chdir(tmp_path)
    before = set(GALLERY.iterdir())
    try:
        runpy.run_path(str(script), run_name="__main__")
        figures = [plt.figure(number) for number in plt.get_fignums()]
        assert figures
        for figure in figures:
            figure.set_layout_engine("none")  # it takes longer than the drawing
            figure.savefig(tmp_path / "picture.png", dpi=20)
            shades = set(figure.canvas.buffer_rgba().tobytes())
            assert len(shades) > 20  # not a blank one
    finally:
        plt.close("all")
    assert {path.name for path in tmp_path.iterdir()} == {"picture.png"}
    assert set(GALLERY.iterdir()) == before
