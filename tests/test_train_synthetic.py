"""The synthetic application end to end: a run and what it leaves, sampling, scoring, resuming, bad input."""

import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
SMALL = ("--steps", "12", "--batch-size", "64", "--save-every", "5", "--eval-draws", "1")


def app(name: str, *args: object) -> subprocess.CompletedProcess[str]:
    """Run an application as a user does, on one thread."""
    command = [sys.executable, str(ROOT / "apps" / f"{name}.py"), *map(str, args)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env=env, timeout=300, check=False
    )


def refused(result: subprocess.CompletedProcess[str], *words: str) -> None:
    """One clear line, exit status 2, no traceback."""
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr


@pytest.fixture(autouse=True)
def fast_inside(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What runs in this process scores few points, on one thread as the processes of `app` do."""
    monkeypatch.setattr("drift_synthetic.evaluate.SIZE", 200)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def in_file(folder: Path, **groups: object) -> tuple[str, Path]:
    """Flags for settings without a flag, which stand in a file."""
    path = folder / "settings.json"
    path.write_text(json.dumps(groups))
    return "--config", path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the checkerboard on the hyperboloid."""
    folder = tmp_path_factory.mktemp("runs")
    out, file = folder / "board", in_file(folder, run={"log_every": 4})
    result = app("train_synthetic", *SMALL, *file, "--space", "hyperboloid", "--out", out)
    assert result.returncode == 0, result.stderr
    assert "tile_accuracy" in result.stdout
    return out


def test_a_run_leaves_what_it_promises(finished, run_card):
    config = json.loads((finished / "config.json").read_text())
    assert config["domain"] == "synthetic"
    assert (config["data"]["space"], config["optimizer"]["steps"]) == ("hyperboloid", 12)
    metrics = json.loads((finished / "metrics.json").read_text())
    assert set(metrics) == {"sliced_wasserstein", "tile_accuracy", "c2st"}
    assert all(set(m) == {"value", "std", "floor", "floor_std"} for m in metrics.values())
    assert metrics["tile_accuracy"]["floor"] > 0.999
    records = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [4, 5, 8, 10, 12]
    scores = {record["step"]: record["validation"] for record in records if "validation" in record}
    assert list(scores) == [5, 10, 12]
    assert (finished / "checkpoints" / "best.pt").exists()
    figures = {path.name for path in (finished / "figures").iterdir()}
    assert figures == {"samples.png", "evolution.png", "field.png", "training.png"}
    assert all((finished / "figures" / name).read_bytes().startswith(b"\x89PNG") for name in figures)
    assert {path.name for path in (finished / "model").iterdir()} >= {"model.safetensors", "config.json"}
    snapshots = sorted(path.name for path in (finished / "snapshots").iterdir())
    assert snapshots == [f"step_{step:09d}.csv" for step in (0, 1, 3, 6)]
    with (finished / "samples.csv").open() as file:
        rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    assert list(rows[0]) == ["t", "x", "y", "u1", "u2"]
    assert all(abs(r["x"] ** 2 + r["y"] ** 2 - r["t"] ** 2 + 1) < 1e-5 for r in rows)
    assert len(run_card(finished)) == 1_000


def test_sampling_and_scoring_a_run(finished, tmp_path, app_inside):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        out = tmp_path / f"{name}.csv"
        assert app_inside("sample", finished, "--n", 50, "--seed", seed, "--out", out).returncode == 0
    a, b, c = ((tmp_path / f"{name}.csv").read_text() for name in "abc")
    assert a == b != c
    assert a.splitlines()[0] == "t,x,y,u1,u2"
    assert len(a.splitlines()) == 51
    before = json.loads((finished / "metrics.json").read_text())
    assert app_inside("evaluate", finished, "--draws", 1, "--on", "val").returncode == 0
    assert json.loads((finished / "metrics.json").read_text()) == before
    assert app_inside("evaluate", finished, "--draws", 2).returncode == 0
    after = json.loads((finished / "metrics.json").read_text())
    assert set(after) == set(before)
    assert after != before
    assert after["tile_accuracy"]["value"] == pytest.approx(before["tile_accuracy"]["value"], abs=0.15)


@pytest.mark.usefixtures("no_figures")
def test_a_resumed_run_ends_as_the_whole_one(finished, tmp_path, app_inside):
    """Cut back to step 5, the run goes on to the same samples and the same snapshots, bit for bit."""
    out = tmp_path / "run"
    file = in_file(tmp_path, run={"log_every": 4, "keep": 3})
    flags = [*SMALL, *file, "--space", "hyperboloid"]
    assert app_inside("train_synthetic", *flags, "--out", out).returncode == 0
    for name in (
        "checkpoints/step_000000010.pt",
        "checkpoints/step_000000012.pt",
        "snapshots/step_000000006.csv",
        "metrics.json",
    ):
        (out / name).unlink()
    result = app_inside("train_synthetic", "--resume", "--out", out)  # the other settings come from the run
    assert result.returncode == 0, result.stderr
    for name in ("samples.csv", "metrics.jsonl", "model/model.safetensors", "snapshots/step_000000006.csv"):
        assert (out / name).read_bytes() == (finished / name).read_bytes()
    refused(app_inside("train_synthetic", "--resume", "--out", out, "--target", "swiss-roll"), "target was")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--target", "moons"], ["--target", "moons"]),
        (["--space", "cube"], ["--space", "cube"]),
        (["--geometry", "flat"], ["--geometry", "flat"]),
        (["--lengthscale", "-1"], ["lengthscale", "-1"]),
        (["--steps", "0"], ["--steps must be at least 1, got 0"]),
        (["--codebook-size", "-1"], ["--codebook-size must be at least 0, got -1"]),
        (
            ["--kernel", "spectral", "--space", "hyperboloid"],
            ["--kernel spectral needs --space sphere or mesh"],
        ),
        (["--max-step", "4"], ["max_step has no flag; set it in a file, --config"]),
        (["--space", "so3", "--target", "swiss-roll"], ["target of the so3 must be one of modes"]),
        (["--space", "mesh", "--kernel", "laplace"], ["--space mesh", "needs --kernel spectral"]),
        (["--space", "mesh", "--mesh", "no.obj"], ["--mesh no.obj: no such file"]),
        (["--mesh", "no.obj"], ["--mesh is for --space mesh; got sphere"]),
        (["--data", "no.csv"], ["no.csv: no such file"]),
        (["--data", "no.csv", "--target", "swiss-roll"], ["--data is a file instead of --target"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_bad_flags(tmp_path, app_inside, flags, words):
    out = tmp_path / "run"
    refused(app_inside("train_synthetic", *flags, "--out", out), *words)
    assert not out.exists()


def test_a_step_beyond_the_injectivity_radius_is_refused(tmp_path, app_inside):
    file, out = in_file(tmp_path, optimizer={"max_step": 4.0}), tmp_path / "run"
    refused(app_inside("train_synthetic", *file, "--out", out), "max_step", "4")
    assert not out.exists()


def test_every_cell_of_the_table_is_a_flag_away(tmp_path, app_inside):
    flags = ["--target", "swiss-roll", "--geometry", "euclidean", "--direction", "displacement"]
    result = app_inside("train_synthetic", *SMALL, *flags, "--out", tmp_path / "run")
    assert result.returncode == 0, result.stderr
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert set(metrics) == {"sliced_wasserstein", "c2st"}


@pytest.mark.parametrize("space", ["torus", "so3", "product", "mesh"])
def test_every_space_trains_from_its_target_and_its_samples_are_data(
    space, tmp_path, app_inside, monkeypatch
):
    """A run of each direction: the second takes the samples of the first as its file."""
    monkeypatch.setattr("drift_synthetic.domain.SyntheticDomain.num_samples", 300)
    monkeypatch.setattr("drift_synthetic.evaluate.c2st", lambda x, y: 0.5)
    flags = ["--steps", 2, "--batch-size", 64, "--eval-draws", 1, "--space", space]
    result = app_inside("train_synthetic", *flags, "--out", tmp_path / "a")
    assert result.returncode == 0, result.stderr
    metrics = json.loads((tmp_path / "a" / "metrics.json").read_text())
    tiles = {"tile_accuracy"} if space == "torus" else set()
    assert set(metrics) == {"sliced_wasserstein", "mmd", "c2st"} | tiles
    figures = {path.name for path in (tmp_path / "a" / "figures").iterdir()}
    assert figures - {"field.png"} == {"samples.png", "evolution.png", "training.png"}
    data = ["--data", tmp_path / "a" / "samples.csv", "--direction", "displacement"]
    result = app_inside("train_synthetic", *flags, *data, "--out", tmp_path / "b")
    assert result.returncode == 0, result.stderr
    assert app_inside("evaluate", tmp_path / "b", "--on", "val").returncode == 0


def test_a_bad_file_is_named_with_its_row(tmp_path, app_inside):
    file = tmp_path / "angles.csv"
    file.write_text("phi,psi\n1,2\n90,45\n")
    out = tmp_path / "run"
    result = app_inside("train_synthetic", "--space", "torus", "--data", file, "--out", out)
    refused(result, "angles.csv, line 3: expected two angles in [-2 pi, 2 pi] radians, found 90, 45")
    assert not out.exists()


def test_the_application_has_few_flags_and_names_the_columns(app_inside):
    text = app_inside("train_synthetic", "--help").stdout
    flags = set(re.findall(r"^│? *--([a-z0-9-]+)", text, flags=re.MULTILINE))
    assert 20 < len(flags - {"help"}) <= 26
    assert "phi,psi" in text
