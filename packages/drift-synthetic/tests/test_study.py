import json
import math
from dataclasses import replace

import pytest
from drift_core.runs.main import load_run
from drift_core.runs.metrics import Metric, Metrics, write_metrics
from drift_core.training.records import read_records
from drift_synthetic import figure4, table1
from drift_synthetic.domain import DOMAIN, SyntheticConfig
from drift_synthetic.study import Budget, Choice, choose, estimate, winner
from drift_synthetic.trials import Trial, by_variant, run_group, run_trials
from torch import nn

TINY = Budget(
    steps=2, batch_size=16, seeds=2, eval_draws=1, lengthscales=("0.2", "0.4:0.3"), step_sizes=(0.05,)
)


def metrics(value: float, floor: float = 0.1) -> Metrics:
    return {"sliced_wasserstein": Metric(value, 0.0, floor, 0.0)}


def test_estimates_are_over_seeds():
    e = estimate([metrics(0.2), metrics(0.4, floor=0.3)], "sliced_wasserstein")
    assert (e.mean, e.sd, e.floor, e.n) == pytest.approx((0.3, 0.02**0.5, 0.2, 2))
    assert e.error == pytest.approx(0.1)
    assert estimate([metrics(0.2)], "sliced_wasserstein").sd == 0
    with pytest.raises(ValueError, match="floor of sliced_wasserstein"):
        estimate([{"sliced_wasserstein": Metric(0.2, 0.0, None, None)}], "sliced_wasserstein")


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


def trial(name: str, lengthscale: str, on="test") -> Trial:
    config = SyntheticConfig.of(steps=2, batch_size=16, eval_draws=1, lengthscale=lengthscale)
    return Trial(name, config, on, ("sliced_wasserstein",))


def test_finished_trials_are_read_and_others_refused(tmp_path):
    first = run_trials([trial("a", "0.2"), trial("b", "0.5")], tmp_path, 2, "test")
    assert set(first) == {"a", "b"}
    assert set(first["a"]) == {"sliced_wasserstein"}
    write_metrics(tmp_path / "a", metrics(0.123))
    assert run_trials([trial("a", "0.2")], tmp_path, 1, "test") == {"a": metrics(0.123)}
    with pytest.raises(ValueError, match="lengthscale"):
        run_trials([trial("a", "0.3")], tmp_path, 1, "test")


def test_a_stopped_trial_goes_on_to_the_same_metrics(tmp_path):
    """Whether it was stopped before its score, or before its first checkpoint."""
    whole = run_trials([trial("a", "0.2")], tmp_path, 1, "test")
    (tmp_path / "a" / "metrics.json").unlink()
    assert run_trials([trial("a", "0.2")], tmp_path, 1, "test") == whole
    assert [record["step"] for record in read_records(tmp_path / "a")] == [2]
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "config.json").write_text((tmp_path / "a" / "config.json").read_text())
    assert run_trials([trial("b", "0.2")], tmp_path, 1, "test")["b"] == whole["a"]


def test_seeds_trained_together_get_the_metrics_that_they_get_alone(tmp_path):
    cell = table1.cells_of(TINY)[0]
    trials = [
        Trial(str(seed), TINY.config(cell, 0.05, seed), metrics=("sliced_wasserstein",)) for seed in range(3)
    ]
    (group,) = by_variant(trials)
    alone = run_trials(trials, tmp_path / "alone", 1, "test")
    together = run_group(group, tmp_path / "together")
    for trial, found in zip(trials, together, strict=True):
        expected = alone[trial.name]["sliced_wasserstein"]
        assert found["sliced_wasserstein"].value == pytest.approx(expected.value, rel=1e-4)
    assert run_group(group, tmp_path / "together") == together


def test_the_best_setting_is_chosen_for_each_key(tmp_path):
    for name, value in (("p-1", 0.3), ("p-2", 0.2), ("q-1", 0.1), ("q-2", 0.4)):
        folder = tmp_path / name
        if name == "p-1":
            run_trials([trial(name, "0.2", "val")], tmp_path, 1, "test")
        else:
            folder.mkdir()
            settings = json.loads((tmp_path / "p-1" / "config.json").read_text())
            (folder / "config.json").write_text(json.dumps(settings))
        write_metrics(folder, metrics(value))
    candidates = {(key, setting): trial(f"{key}-{setting}", "0.2", "val") for key in "pq" for setting in "12"}
    chosen = choose(candidates, "sliced_wasserstein", tmp_path, 1)
    assert chosen == {"p": Choice("2", 0.2), "q": Choice("1", 0.1)}


def test_table_1_is_the_whole_design(tmp_path, monkeypatch):
    cells = table1.cells_of(TINY)
    assert len(cells) == len(set(cells)) == 32
    board = [cell for cell in cells if cell[:2] == ("checkerboard", "hyperboloid")]
    monkeypatch.setattr(table1, "cells_of", lambda _: board)
    monkeypatch.setattr(table1, "FLOW_STEPS", (0, 1))
    rows = table1.run_table1(TINY, tmp_path, 1)
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
    assert json.loads((tmp_path / "table1.json").read_text())["rows"] == json.loads(json.dumps(rows))
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
    cells = [
        cell
        for cell in table1.cells_of(TINY)
        if cell[:4] == ("swiss-roll", "sphere", "intrinsic", "gradient")
    ]
    assert len(cells) == 2
    for best in cells:
        chosen = {cell: Choice(0.05, 0.1 if cell == best else 0.2) for cell in cells}
        assert {table1.best_lengthscale(chosen, cell) for cell in cells} == {best}


def test_figure_4_ends_at_the_gaussian(tmp_path, monkeypatch):
    # The classifier has tests of its own, and takes seconds.
    monkeypatch.setattr("drift_synthetic.evaluate.c2st", lambda x, y: float((x.mean() - y.mean()).abs()))
    few = replace(TINY, seeds=1, lengthscales=("0.4:0.3",))
    rows = figure4.run_figure4(few, (0.5, math.inf), tmp_path, 1)
    assert [(row["lengthscale"], row["nu"]) for row in rows] == [("0.4:0.3", 0.5), ("0.4:0.3", "inf")]
    assert {"displacement", "gradient", "better"} == set(rows[0]["c2st"])
    assert "| 0.4:0.3 | inf |" in (tmp_path / "figure4.md").read_text()
    assert (tmp_path / "figures" / "figure4.png").stat().st_size > 5_000


def test_a_budget_without_a_codebook_trains_networks_of_gaussian_latents(tmp_path):
    plain = replace(TINY, codebook_size=0)
    cell, point = table1.cells_of(plain)[0], figure4.Point("0.4:0.3", 0.5, "gradient")
    for name, variant in (("cell", cell), ("point", point)):
        trial = Trial(name, plain.config(variant, 0.05, 0), metrics=("sliced_wasserstein",))
        run_trials([trial], tmp_path, 1, "test")
        modules = list(load_run(DOMAIN, tmp_path / name).generator.modules())
        assert not any(isinstance(module, nn.Embedding) for module in modules)
    assert TINY.config(cell, 0.05, 0).network == SyntheticConfig().network.replace(geometry=cell.geometry)
