"""Studies: cells are chosen, trained with seeds, resumed, compared and collected."""

import json
import math
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from drift_core import Domain, Euclidean, KernelField, Laplace
from drift_core.lengthscale import parse_lengthscales
from drift_core.runs import DomainConfig, Measured, Metric, evaluate_draws
from drift_core.runs.figures import DATA_COLOUR, MODEL_COLOUR
from drift_core.runs.study import (
    Cell,
    Choice,
    Cost,
    Estimate,
    Findings,
    Result,
    Shown,
    Table,
    Trial,
    check_data,
    choose,
    estimate,
    fill_table,
    folder_name,
    lengthscale_candidates,
    mean_cost,
    paired_p_value,
    run_group,
    run_seeds,
    run_table,
    run_trials,
    write_study,
)
from drift_core.runs.study.figure import table_figure
from drift_core.runs.study.grids import number
from drift_core.runs.study.processes import mapped, visible_devices
from drift_core.runs.study.table import Entry
from drift_core.runs.study.trials import DIVERGED, by_variant
from drift_core.seeds import generator_for
from drift_core.training import OptimizerConfig, resample
from drift_core.training.config import Settings
from drift_core.training.records import read_records
from huggingface_hub import PyTorchModelHubMixin
from matplotlib.figure import Figure
from matplotlib.image import imread
from scipy.stats import ttest_rel
from torch import nn


@dataclass(frozen=True, kw_only=True)
class DataConfig(Settings):
    data: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Config(DomainConfig):
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(steps=4, lr=0.1))
    data: DataConfig = field(default_factory=DataConfig)


class Shift(nn.Module, PyTorchModelHubMixin):
    """Normal noise moved by a learned step."""

    def __init__(self, start: float = 0.0):
        super().__init__()
        self.shift = nn.Parameter(torch.full((2,), start))

    def forward(self, z):
        return z + self.shift

    def latent(self, n, generator):
        return torch.randn(n, 2, generator=generator)


class Tiny(Domain):
    """Normal points around (3, 3), which start around the origin."""

    name, config_type, generator_type = "tiny", Config, Shift
    stop_at = None

    def load(self, config):
        if config.data.data is not None:
            raise FileNotFoundError(f"{config.data.data}: no such file")
        return 3 + torch.randn(64, 2, generator=torch.Generator().manual_seed(0))

    def generator(self, config, data):
        return Shift()

    def field(self, config, data):
        return KernelField(Euclidean(), Laplace, parse_lengthscales("1"), config.kernel.direction)

    def data_sampler(self, config, data):
        return resample(data)

    def validation(self, config, data):
        return lambda generator: float((generator.shift - 3).norm())

    def on_step(self, folder, config, data):
        def stop(batch):
            if batch.step == type(self).stop_at:
                raise KeyboardInterrupt

        return stop

    def sample(self, run, n, seed):
        return run.generator(run.generator.latent(n, generator_for(seed))).detach()

    def write(self, path, samples):
        raise NotImplementedError

    def metrics(self, run, draws, on):
        def measure(k) -> Measured:
            mean = self.sample(run, 50, k).mean()
            return {"distance": float(3 - mean), "plain": 1.0}, {"distance": 0.5, "plain": math.nan}

        return evaluate_draws(measure, draws)


CONFIG = Config.of(batch_size=8, save_every=2, eval_draws=2, step_size=0.5)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_paired_test_is_students():
    """Two degrees of freedom: p = 1 - |t| / sqrt(2 + t^2)."""
    x, y = (0.30, 0.34, 0.41), (0.25, 0.31, 0.33)
    d = [0.05, 0.03, 0.08]
    t = (sum(d) / 3) / (torch.tensor(d, dtype=torch.float64).std().item() / 3**0.5)
    assert paired_p_value(x, y) == pytest.approx(1 - t / math.sqrt(2 + t * t), rel=1e-6)
    assert paired_p_value(y, x) == paired_p_value(x, y)
    many = torch.randn(2, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64).tolist()
    assert paired_p_value(*many) == pytest.approx(ttest_rel(*many).pvalue, rel=1e-9)


def test_the_paired_test_at_its_edges():
    assert paired_p_value([1.0], [2.0]) is None
    assert paired_p_value([1.0, 2.0], [1.0, 2.0]) == 1
    assert paired_p_value([1.0, 2.0], [1.5, 2.5]) == 0
    with pytest.raises(ValueError, match=r"shorter|longer"):
        paired_p_value([1.0, 2.0], [1.0])


def test_estimates_are_over_seeds():
    e = estimate([{"m": Metric(0.2, 0.0, 0.1, 0.01)}, {"m": Metric(0.4, 0.0, 0.3, 0.03)}], "m")
    expected = (0.3, 0.02**0.5, 0.2, 2, 0.02)
    assert (e.mean, e.sd, e.floor, e.n, e.floor_sd) == pytest.approx(expected)
    assert (e.error, e.ratio) == pytest.approx((0.1, 1.5))
    single = estimate([{"m": Metric(0.2, 0.0, None, None)}], "m")
    assert (single.sd, single.floor, single.ratio) == (0, None, None)
    with pytest.raises(ValueError, match="the m of a run is undefined"):
        estimate([{"m": Metric(None, None, 0.1, 0.0)}], "m")


@pytest.mark.parametrize("stopped", [0, 2, None], ids=["at once", "in training", "before its score"])
def test_a_study_that_was_stopped_goes_on_to_the_same_results(tmp_path, monkeypatch, stopped):
    cells = {"a": Cell("a", Tiny(), CONFIG)}
    whole = run_seeds(cells, {"a": Choice()}, 2, tmp_path / "whole", 1)
    if stopped is not None:
        monkeypatch.setattr(Tiny, "stop_at", stopped)
    else:
        monkeypatch.setattr(Tiny, "metrics", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run_seeds(cells, {"a": Choice()}, 2, tmp_path / "stopped", 1)
    assert not list(tmp_path.glob("stopped/a/*/metrics.json"))
    monkeypatch.undo()
    again = run_seeds(cells, {"a": Choice()}, 2, tmp_path / "stopped", 1)
    assert [r.metrics for r in again["a"]] == [r.metrics for r in whole["a"]]
    assert [r["step"] for r in read_records(tmp_path / "stopped" / "a" / "seed-0")] == [4]


def test_finished_trials_are_read_and_leave_no_checkpoints(tmp_path, monkeypatch):
    trial = Trial("a", Tiny(), CONFIG)
    first = run_trials([trial], tmp_path, 1, "test")["a"]
    assert {path.name for path in (tmp_path / "a").iterdir()} == {
        "config.json", "cost.json", "metrics.json", "metrics.jsonl", "model"
    }  # fmt: skip
    before = tree(tmp_path)
    monkeypatch.setattr(Tiny, "stop_at", 0)
    assert run_trials([trial], tmp_path, 1, "test")["a"] == first
    assert tree(tmp_path) == before
    assert first.cost.minutes > 0
    assert first.cost.processor


@pytest.mark.parametrize("change", [{"lr": 0.2}, {"eval_draws": 3}])
def test_other_settings_are_refused(tmp_path, change):
    run_trials([Trial("a", Tiny(), CONFIG)], tmp_path, 1, "test")
    before = tree(tmp_path)
    name, value = next(iter(change.items()))
    with pytest.raises(ValueError, match=rf"a has other settings .*{name} was .*, is {value}"):
        run_trials([Trial("a", Tiny(), CONFIG.replace(**change))], tmp_path, 1, "test")
    assert tree(tmp_path) == before
    free = CONFIG.replace(save_every=1)
    assert run_trials([Trial("a", Tiny(), free)], tmp_path, 1, "test")


def test_seeds_trained_together_get_the_results_that_they_get_alone(tmp_path):
    tiny, other = Tiny(), Tiny()
    trials = [Trial(str(seed), tiny, CONFIG.replace(seed=seed)) for seed in range(2)]
    anchor = Trial("anchor", tiny, CONFIG, generator=lambda config, data: Shift(3.0))
    another = Trial("another", other, CONFIG)  # of the same settings, but perhaps with another field
    groups = by_variant([*trials, anchor, another])
    assert groups == [trials, [anchor], [another]]
    together = run_group(groups[0], tmp_path / "together")
    for trial, found in zip(trials, together, strict=True):
        (alone,) = run_group([trial], tmp_path / "alone")
        assert found.metrics["distance"].value == pytest.approx(alone.metrics["distance"].value, rel=1e-5)


def test_what_diverges_loses_and_stops_no_other(tmp_path, monkeypatch):
    monkeypatch.setattr(Tiny, "generator", lambda self, c, _: Shift(math.nan if c.run.seed == 1 else 0.0))
    tiny = Tiny()
    (group,) = by_variant([Trial(str(seed), tiny, CONFIG.replace(seed=seed)) for seed in range(2)])
    fine, diverged = run_group(group, tmp_path)
    assert set(fine.metrics) == {"distance", "plain"}
    assert set(diverged.metrics) == {DIVERGED}
    assert run_group(group, tmp_path) == [fine, diverged]
    table = make_table(a=Cell("a", Tiny(), CONFIG))
    text = run_table(table, tmp_path, 1).markdown
    assert re.search(r"\| a \| [\d.e-]+ min, 1 of 2 seeds diverged \|", text)
    monkeypatch.setattr(Tiny, "generator", lambda self, c, _: Shift(math.nan if c.optimizer.lr > 1 else 0.0))
    cells = {"a": Cell("a", Tiny(), CONFIG, {"wild": {"lr": 2.0}, "tame": {"lr": 0.1}})}
    assert choose(cells, tmp_path, 1)["a"].label == "tame"


def test_the_best_candidate_on_validation_data_is_trained_with_the_seeds(tmp_path):
    cells = {
        "tuned": Cell(
            "tuned", Tiny(), CONFIG, {"slow": {"lr": 1e-3}, "fast": {"lr": 0.5}}, tuning_settings={"steps": 3}
        ),
        "plain": Cell("plain", Tiny(), CONFIG),
    }
    chosen = choose(cells, tmp_path, 1)
    assert str(chosen["plain"]) == str(Choice())  # its value is nan, which Python 3.13 compares as a number
    assert (chosen["tuned"].label, chosen["tuned"].settings) == ("fast", {"lr": 0.5})
    run_seeds(cells, chosen, 1, tmp_path, 1)
    settings, tuning = (
        json.loads((tmp_path / "tuned" / name / "config.json").read_text())
        for name in ("seed-0", "tuning-fast")
    )
    assert (settings["optimizer"]["lr"], settings["run"]["seed"]) == (0.5, 0)
    assert (tuning["optimizer"]["lr"], tuning["optimizer"]["steps"]) == (0.5, 3)
    assert settings["optimizer"]["steps"] == CONFIG.optimizer.steps != 3
    assert {path.name for path in (tmp_path / "tuned").iterdir()} == {"tuning-slow", "tuning-fast", "seed-0"}


def make_table(**cells: Cell) -> Table:
    return Table(
        "table9",
        "Table 9",
        "Four steps.",
        {(row, column): cell for row, cell in cells.items() for column in ("here", "there")},
        (Shown("distance", "Distance", digits=2), Shown("plain", "Plain", "")),
        {"distance": {("far", "here"): 0.25, ("theirs", "there"): 0.125}},
        seeds=2,
    )


def anchored(row: str, shift: float) -> Cell:
    return Cell(row, Tiny(), CONFIG, generator=lambda config, data: Shift(shift))


def test_a_table_has_means_floors_published_values_and_the_best_rows(tmp_path):
    table = make_table(near=anchored("near", 2.5), far=anchored("far", 1.0))
    report = run_table(table, tmp_path, 1)
    findings = fill_table(table, tmp_path, 1)
    near, far = (findings.column("here", "distance")[row] for row in ("near", "far"))
    assert far.mean - near.mean == pytest.approx(1.5, abs=1e-6)  # they have the same latents
    stored = json.loads((tmp_path / "table9.json").read_text())
    cell = next(c for c in stored["cells"] if (c["row"], c["column"]) == ("far", "here"))
    assert cell["metrics"]["distance"]["published"] == 0.25
    assert cell["metrics"]["distance"]["ratio"] == pytest.approx(far.mean / 0.5)
    assert cell["metrics"]["plain"]["floor"] is None
    pairs = [c for c in stored["comparisons"] if c["metric"] == "distance"]
    assert [(c["column"], c["rows"], c["p"] < 0.05) for c in pairs] == [
        ("here", ["near", "far"], True), ("there", ["near", "far"], True)
    ]  # fmt: skip
    text = (tmp_path / "table9.md").read_text()
    assert text == report.markdown
    assert f"| near | **{near.mean:.2f} ± 0.00 ({2 * near.mean:.2f})** |  | **" in text
    assert f"| far | {far.mean:.2f} ± 0.00 ({2 * far.mean:.2f}) | 0.25 | " in text
    assert re.search(r"\| theirs \|  \|  \|  \| 0\.12 \|", text)
    assert "| floor | 0.50 ± 0.00 |  | 0.50 ± 0.00 |  |" in text
    write_study(tmp_path / "study.html", [report], {"table8": "no data"}, "run again")
    html = (tmp_path / "study.html").read_text()
    for shown in ("Table 9", "theirs", "data:image/png;base64,", "table8", "no data", "run again"):
        assert shown in html
    assert imread(tmp_path / "figures" / "table9.png").std() > 0.02


def test_rows_that_do_not_differ_significantly_lead_together():
    values = {"a": (1.0, 2.0, 3.0), "b": (1.1, 1.9, 3.2), "c": (1.5, 2.52, 3.49)}
    entries = [
        Entry(row, "here", "", {"distance": Estimate(sum(v) / 3, 1.0, None, 3, v)}, Cost())
        for row, v in values.items()
    ]
    findings = Findings(make_table(near=anchored("near", 2.5)), entries)
    leaders = {
        best: findings.leaders("here", Shown("distance", "", best)) for best in ("lower", "higher", "")
    }
    assert leaders == {"lower": {"a", "b"}, "higher": {"c"}, "": set()}
    anchored_table = replace(findings.table, anchors=("a", "b"))
    assert Findings(anchored_table, entries).leaders("here", Shown("distance", "")) == {"c"}


def test_the_legend_explains_the_marks_that_are_there(tmp_path, monkeypatch):
    labels: list[set[str]] = []

    def legend(figure: Figure, handles: list, names: list[str], **settings: object) -> None:
        labels.append(set(names))

    monkeypatch.setattr(Figure, "legend", legend)
    table = make_table(near=anchored("near", 2.5), far=anchored("far", 1.0))
    compared = replace(table, metrics=table.metrics[:1])  # "plain" is neither better nor worse
    for shown in (table, replace(table, published={}, anchors=("far",)), compared):
        table_figure(Findings(shown, []), tmp_path / "table.png")
    assert labels[0] ^ labels[1] == {"published", "anchor"}
    assert "published" in labels[0]
    assert labels[0] - labels[2] == {"neither"}


def test_only_values_of_compared_metrics_have_the_colours_of_better_and_worse(tmp_path, monkeypatch):
    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, part, **_: (drawn.append(figure), part.touch()))
    table = make_table(near=anchored("near", 2.5))
    entries = [
        Entry(
            row,
            "here",
            "",
            {name: Estimate(x, 0.1, None, 2, (x, x)) for name in ("distance", "plain")},
            Cost(),
        )
        for row, x in (("near", 1.0), ("far", 2.0))
    ]
    table_figure(Findings(table, entries), tmp_path / "table.png")
    distance, _, plain, _ = (
        [line.get_color() for line in axes.lines if line.get_marker() == "o"] for axes in drawn[0].axes
    )
    assert distance == [MODEL_COLOUR, DATA_COLOUR]
    assert plain == ["#777777"] * 2


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (-0.0004, 3, "0.000"),
        (-0.04, 2, "-0.04"),
        (207_164.4, 0, "207,164"),
        (float("nan"), 2, "nan"),
        (None, 2, ""),
    ],
)
def test_numbers_have_separators_and_no_negative_zero(value, digits, text):
    assert number(value, digits).text == text


def test_missing_data_are_said_before_anything_is_trained(tmp_path):
    lost = Cell("lost", Tiny(), CONFIG.replace(data=Path("gone.csv")))
    table = make_table(near=anchored("near", 2.5), lost=lost)
    with pytest.raises(FileNotFoundError, match=r"gone\.csv: no such file"):
        run_table(table, tmp_path / "out", 1)
    assert not (tmp_path / "out").exists()
    check_data(make_table(near=anchored("near", 2.5)))


def test_each_process_takes_a_gpu_in_turn(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_devices() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert visible_devices() == ["3", "5"]


def test_work_is_done_by_processes_of_one_thread_and_without_progress_bars():
    found = dict(mapped(os.getenv, ["OMP_NUM_THREADS", "TQDM_DISABLE"], 2))
    assert found == {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}


def test_one_candidate_is_taken_without_a_comparison(tmp_path):
    table = Table(
        "t", "T", "", {("a", "b"): Cell("a", Tiny(), CONFIG, {"fast": {"lr": 0.5}})}, [Shown("distance", "")]
    )
    (entry,) = fill_table(table, tmp_path, workers=1).entries
    assert entry.choice == "fast"
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"seed-0", "seed-1", "seed-2"}
    assert json.loads((tmp_path / "a/seed-0/config.json").read_text())["optimizer"]["lr"] == 0.5


def test_candidates_that_differ_in_their_lengthscale_are_named_as_folders_are():
    expected = {"0.2": {"lengthscale": "0.2"}, "auto-to-0.15": {"lengthscale": "auto:0.15"}}
    assert lengthscale_candidates(["0.2", "auto:0.15"]) == expected


def test_a_killed_process_is_one_line():
    with pytest.raises(OSError, match=r"a process was killed.*fewer `workers`"):
        list(mapped(os._exit, [1], 2))


def test_processes_end_with_the_one_that_started_them():
    """Even if it is killed; they keep its standard output open while they live."""
    work = "import time; print('working', flush=True); time.sleep(120)"
    code = f"from drift_core.runs.study.processes import mapped; list(mapped(exec, [{work!r}], 2))"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "working\n"
        process.kill()
        assert process.communicate(timeout=30) == ("", None)


def test_costs_are_means_of_what_is_known():
    results = [Result({}, Cost("A", 1.0)), Result({}, Cost("B", 2.0)), Result({}, Cost())]
    assert mean_cost(results) == Cost("A, B", 1.5)
    assert mean_cost([]) == Cost(None, None)
    assert str(mean_cost(results)) == "CPU minutes (GPU: minutes) of a run: 1.5; processor: A, B."


def test_names_of_folders():
    assert folder_name("Spherical Laplace (displacement)") == "spherical-laplace"
    assert folder_name("our default, larger") == "our-default-larger"
