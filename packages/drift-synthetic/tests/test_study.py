import json
import math
import pickle
from dataclasses import replace

import pytest
from drift_core.runs.main import load_run
from drift_core.runs.metrics import Metric, Metrics
from drift_core.runs.study import Choice, Cost, Result, estimate, run_trials
from drift_synthetic import figure4, table1
from drift_synthetic.domain import DOMAIN, SyntheticConfig
from drift_synthetic.study import Budget, make_cell, winner
from torch import nn

TINY = Budget(
    steps=2, batch_size=16, seeds=2, eval_draws=1, lengthscales=("0.2", "0.4:0.3"), step_sizes=(0.05,)
)


def metrics(value: float, floor: float = 0.1) -> Metrics:
    return {"sliced_wasserstein": Metric(value, 0.0, floor, 0.0)}


@pytest.mark.parametrize(
    ("gradient", "verdict"),
    # Standard errors are 0.1 and 0.1: differences up to 2 sqrt(0.02) = 0.283 are ties.
    [((0.2, 0.4), "tie"), ((0.48, 0.68), "tie"), ((0.49, 0.69), "displacement"), ((-0.1, 0.1), "gradient")],
)
def test_a_direction_wins_by_two_standard_errors(gradient, verdict):
    pair = {
        "displacement": estimate([metrics(0.2), metrics(0.4)], "sliced_wasserstein"),
        "gradient": estimate([metrics(v) for v in gradient], "sliced_wasserstein"),
    }
    assert winner("sliced_wasserstein", pair) == verdict


def test_higher_tile_accuracy_wins():
    low, high = (
        estimate([{"tile_accuracy": Metric(v, 0.0, 1.0, 0.0)} for v in (v0, v0 + 0.01)], "tile_accuracy")
        for v0 in (0.5, 0.9)
    )
    assert winner("tile_accuracy", {"displacement": low, "gradient": high}) == "gradient"
    with pytest.raises(ValueError, match="two"):
        winner("tile_accuracy", {"gradient": high})


def test_a_metric_is_scored_on_a_stream(tmp_path):
    """By trials as other processes receive them; drift-core's tests start some."""
    point = figure4.Point("0.4:0.3", 0.5, "gradient")
    budget = replace(TINY, step_sizes=(0.05, 0.1))
    cell = make_cell(point, budget, ("sliced_wasserstein",), "sliced_wasserstein", tuning_draws=1)
    assert cell.folder == "nu-0.5-gradient-0.4-to-0.3"
    tuning, _ = cell.tuning_trials().values()
    assert tuning.name == f"{cell.folder}/tuning-step-0.05"
    seed = cell.seed_trial(Choice("step-0.05", {"step_size": 0.05}), 0)
    tuning, seed = pickle.loads(pickle.dumps((tuning, seed)))
    found = run_trials([tuning, seed], tmp_path, 1, "test")
    val, test = (found[trial.name].metrics for trial in (tuning, seed))
    assert set(val) == set(test) == {"sliced_wasserstein"}
    assert val["sliced_wasserstein"].floor != test["sliced_wasserstein"].floor


def test_table_1_is_the_whole_design(tmp_path, monkeypatch):
    cells = table1.cells_of(TINY)
    assert len(cells) == len(set(cells)) == 32
    board = [cell for cell in cells if cell[:2] == ("checkerboard", "hyperboloid")]
    monkeypatch.setattr(table1, "cells_of", lambda _: board)
    monkeypatch.setattr(table1, "FLOW_STEPS", (0, 1))
    report = table1.run_table1(TINY, tmp_path, 1)
    rows = json.loads((tmp_path / "table1.json").read_text())["rows"]
    assert [(row["geometry"], row["lengthscale"]) for row in rows] == [
        ("euclidean", "0.2"), ("euclidean", "0.4:0.3"),
        ("intrinsic", "0.2"), ("intrinsic", "0.4:0.3"), ("euclidean", "best"), ("intrinsic", "best"),
    ]  # fmt: skip
    for row in rows:
        for direction in ("displacement", "gradient"):
            lengthscale, step_size = row["settings"][direction]
            assert step_size == 0.05
            assert row["lengthscale"] in ("best", lengthscale)
            cell = table1.Cell("checkerboard", "hyperboloid", row["geometry"], direction, lengthscale)
            seeds = [
                json.loads((tmp_path / cell.folder / f"seed-{s}" / "metrics.json").read_text())
                for s in (0, 1)
            ]
            values = [seed["sliced_wasserstein"]["value"] for seed in seeds]
            assert row["sliced_wasserstein"][direction]["mean"] == pytest.approx(sum(values) / 2)
    assert {figure.path.name for figure in report.figures} >= {"flow.png", "samples-0.2.png"}
    assert (tmp_path / "table1.md").read_text().count("checkerboard on the hyperboloid") == 2 * len(rows)
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    scales = ("0.2", "0.4-to-0.3")
    problem = "checkerboard-hyperboloid"
    assert names == {"flow.png"} | {
        f"{kind}-{scale}.png"
        for kind in ("samples", f"evolution-{problem}", f"field-{problem}")
        for scale in scales
    }


def test_the_best_lengthscale_is_that_of_validation():
    """By the mean over seeds, whatever the test stream says."""
    cells = [
        cell
        for cell in table1.cells_of(TINY)
        if cell[:4] == ("swiss-roll", "sphere", "intrinsic", "gradient")
    ]
    assert len(cells) == 2
    for best in cells:
        values = {cell: (0.1, 0.3) if cell == best else (0.25, 0.2) for cell in cells}
        results = {
            cell: [
                Result({**metrics(1 - value), "validation": Metric(value, 0.0, 0.1, 0.0)}, Cost())
                for value in seeds
            ]
            for cell, seeds in values.items()
        }
        assert {table1.best_lengthscale(results, cell) for cell in cells} == {best}


def test_figure_4_ends_at_the_gaussian(tmp_path, monkeypatch):
    # The classifier has tests of its own, and takes seconds.
    monkeypatch.setattr("drift_synthetic.evaluate.c2st", lambda x, y: float((x.mean() - y.mean()).abs()))
    few = replace(TINY, seeds=1, lengthscales=("0.4:0.3",))
    figure4.run_figure4(few, (0.5, math.inf), tmp_path, 1)
    rows = json.loads((tmp_path / "figure4.json").read_text())["points"]
    assert [(row["lengthscale"], row["nu"]) for row in rows] == [("0.4:0.3", 0.5), ("0.4:0.3", "inf")]
    assert {"displacement", "gradient", "better"} == set(rows[0]["c2st"])
    assert "| 0.4:0.3 | inf |" in (tmp_path / "figure4.md").read_text()
    assert (tmp_path / "figures" / "figure4.png").stat().st_size > 5_000


def test_a_budget_without_a_codebook_trains_networks_of_gaussian_latents(tmp_path):
    plain = replace(TINY, codebook_size=0)
    first, point = table1.cells_of(plain)[0], figure4.Point("0.4:0.3", 0.5, "gradient")
    for name, variant in (("cell", first), ("point", point)):
        cell = make_cell(variant, plain, ("sliced_wasserstein",), "sliced_wasserstein")
        trial = replace(cell.seed_trial(Choice(), 0), name=name)
        run_trials([trial], tmp_path, 1, "test")
        modules = list(load_run(DOMAIN, tmp_path / name).generator.modules())
        assert not any(isinstance(module, nn.Embedding) for module in modules)
    assert TINY.config(first, 0.05, 0).network == SyntheticConfig().network.replace(geometry=first.geometry)
