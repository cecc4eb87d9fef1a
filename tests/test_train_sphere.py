"""The sphere's applications end to end: a run and what it leaves, sampling, scoring, resuming, bad input."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
OFTEN = str(Path(__file__).with_name("often.json"))
SMALL = ("--steps", "12", "--batch-size", "64", "--save-every", "5", "--config", OFTEN, "--eval-draws", "2")

Run = Callable[..., subprocess.CompletedProcess[str]]


def app(name: str, *args: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run an application as a user does, on one thread."""
    command = [sys.executable, str(ROOT / "apps" / f"{name}.py"), *map(str, args)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=env, timeout=300, check=False)


def refused(result: subprocess.CompletedProcess[str], *words: str) -> None:
    """One clear line, exit status 2, no traceback."""
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    message = result.stderr.strip().splitlines()[-1] if "error:" in result.stderr else result.stderr
    for word in words:
        assert word in (message if message.startswith("error:") else result.stderr)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on the toy data."""
    out = tmp_path_factory.mktemp("runs") / "toy"
    result = app("train_sphere", *SMALL, "--out", out)
    assert result.returncode == 0, result.stderr
    assert "nn_accuracy" in result.stdout
    return out


def test_a_run_leaves_what_it_promises(finished, run_card):
    config = json.loads((finished / "config.json").read_text())
    assert config["domain"] == "sphere"
    assert config["optimizer"]["steps"] == 12
    metrics = json.loads((finished / "metrics.json").read_text())
    names = {"mmd", "mmd2_unbiased", "sinkhorn", "sinkhorn_cost", "nn_accuracy", "log_likelihood"}
    assert set(metrics) == names
    assert all(set(m) == {"value", "std", "floor", "floor_std"} for m in metrics.values())
    records = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [4, 5, 8, 10, 12]
    scores = {record["step"]: record["validation"] for record in records if "validation" in record}
    assert list(scores) == [5, 10, 12]
    assert (finished / "checkpoints" / "best.pt").exists()
    figures = {path.name for path in (finished / "figures").iterdir()}
    assert figures == {"samples.png", "density.png", "field.png", "training.png"}
    assert all((finished / "figures" / name).read_bytes().startswith(b"\x89PNG") for name in figures)
    report = (finished / "report.html").read_text()
    assert "nn_accuracy" in report
    assert report.count("data:image/png;base64,") == 3  # curves are drawn as charts
    assert torch.__version__ in (finished / "environment.json").read_text()
    assert {path.name for path in (finished / "model").iterdir()} >= {"model.safetensors", "config.json"}
    with (finished / "samples.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert all(-90 <= float(r["latitude"]) <= 90 and -180 <= float(r["longitude"]) <= 180 for r in rows)
    assert len(run_card(finished)) == 1_000


def test_samples_are_determined_by_their_seed(finished, tmp_path, app_inside):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        result = app_inside("sample", finished, "--n", 50, "--seed", seed, "--out", tmp_path / f"{name}.csv")
        assert result.returncode == 0, result.stderr
    a, b, c = ((tmp_path / f"{name}.csv").read_text() for name in "abc")
    assert a == b != c
    assert len(a.splitlines()) == 51
    refused(app_inside("sample", finished, "--out", tmp_path / "a.csv"), "--out", "a.csv exists")
    assert (tmp_path / "a.csv").read_text() == a


def test_evaluating_again_rewrites_the_metrics(finished, app_inside):
    before = json.loads((finished / "metrics.json").read_text())
    report = (finished / "report.html").read_text()
    result = app_inside("evaluate", finished, "--draws", 3, "--on", "val")
    assert result.returncode == 0, result.stderr
    assert json.loads((finished / "metrics.json").read_text()) == before
    assert (finished / "report.html").read_text() == report
    assert app_inside("evaluate", finished, "--draws", 3).returncode == 0
    after = json.loads((finished / "metrics.json").read_text())
    assert after["mmd"] != before["mmd"]
    assert after["mmd"]["value"] == pytest.approx(before["mmd"]["value"], rel=0.5)
    again = (finished / "report.html").read_text()
    assert again != report
    assert again.partition("Training</h2>")[2] == report.partition("Training</h2>")[2]


@pytest.fixture
def one_thread() -> Iterator[None]:
    """What runs in this process computes as the processes of `app` do."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread", "no_figures")
def test_a_resumed_run_ends_as_the_whole_one(finished, tmp_path, app_inside):
    """Cut back to step 10, the run goes on to the same samples and the same metrics, bit for bit."""
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    (out / "checkpoints" / "step_000000012.pt").unlink()
    for name in ("samples.csv", "metrics.json", "model/model.safetensors"):
        (out / name).unlink()
    result = app_inside("train_sphere", "--resume", "--out", out)  # the other settings come from the run
    assert result.returncode == 0, result.stderr
    for name in ("samples.csv", "metrics.jsonl", "model/model.safetensors"):
        assert (out / name).read_bytes() == (finished / name).read_bytes()
    refused(app_inside("train_sphere", "--resume", "--out", out, "--lr", 0.5), "lr was", "is 0.5")


@pytest.mark.usefixtures("one_thread", "no_figures")
def test_ctrl_c_saves_and_resumes(finished, tmp_path, app_inside):
    out = tmp_path / "run"
    command = [
        sys.executable,
        str(ROOT / "apps" / "train_sphere.py"),
        *SMALL,
        "--steps",
        "12",
        "--out",
        str(out),
    ]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
    while not (out / "metrics.jsonl").exists():  # the loop has begun
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    if process.returncode != 0:  # else it was faster than the signal
        assert process.returncode == 130
        assert "Traceback" not in err
        assert "--resume" in err
        assert list((out / "checkpoints").iterdir())
        assert app_inside("train_sphere", "--resume", "--out", out).returncode == 0
    assert (out / "samples.csv").read_bytes() == (finished / "samples.csv").read_bytes()


def test_a_folder_that_holds_a_run_is_left_alone(finished, app_inside):
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    refused(app_inside("train_sphere", *SMALL, "--out", finished), "--out", "already holds a run", "--resume")
    assert before == {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["mine.csv"]),
        ("latitude,longitude\n" + "1,2\n" * 20 + "north,3\n", ["mine.csv", "22"]),
        ("1,2\n" * 20 + "nan,3\n", ["mine.csv", "21"]),
        ("1,2\n" * 20 + "91,3\n", ["mine.csv", "21", "91"]),
        ("1\n" * 20, ["mine.csv", "1"]),
        ("1,2\n", ["mine.csv", "1 row"]),
        ("1,2\n" * 15, ["mine.csv", "15 rows", "at least 20"]),
    ],
    ids=["empty", "text", "nan", "latitude 91", "one column", "one row", "one row to test on"],
)
def test_bad_tables(tmp_path, app_inside, text, words):
    (tmp_path / "mine.csv").write_text(text)
    out = tmp_path / "run"
    refused(app_inside("train_sphere", *SMALL, "--data", tmp_path / "mine.csv", "--out", out), *words)
    assert not out.exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--kernel", "cauchy"], ["--kernel", "cauchy"]),
        (["--dataset", "moon"], ["--dataset", "moon"]),
        (["--lengthscale", "-1"], ["lengthscale", "-1"]),
        (["--steps", "-1"], ["--steps", "-1"]),
        (["--steps", "many"], ["--steps", "many"]),
        (["--step-sise", "1"], ["--step-sise"]),
        (["--max-step", "4"], ["max_step has no flag", "--config"]),
        (["--kernel", "spectral", "--geometry", "euclidean"], ["spectral", "euclidean"]),
        (["--kernel", "matern", "--nu", "-1"], ["nu", "-1"]),
        (["--codebook-size", "-1"], ["--codebook-size must be at least 0, got -1"]),
        (["--optimizer", "sgd"], ["--optimizer", "sgd"]),
        (["--nu", "2.5"], ["--nu is for --kernel matern or spectral; got laplace"]),
        (["--recipe", "moon"], ["--recipe", "moon"]),
        (["--dataset", "fire", "--data", "mine.csv"], ["--data", "--dataset fire"]),
        (["--allow-changes"], ["--allow-changes", "--resume"]),
        (["--data", "nowhere.csv"], ["nowhere.csv"]),
        (["--dataset", "flood", "--data-dir", "nowhere"], ["nowhere"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_bad_flags(tmp_path, app_inside, flags, words):
    out = tmp_path / "run"
    refused(app_inside("train_sphere", *flags, "--out", out), *words)
    assert not out.exists()


def test_runs_that_are_not_there(tmp_path, app_inside):
    refused(app_inside("sample", tmp_path, "--out", tmp_path / "a.csv"), "holds no run")
    refused(app_inside("evaluate", tmp_path / "nothing"), "holds no run")
    refused(app_inside("train_sphere", "--resume", "--out", tmp_path), "holds no run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("flags", [["--geometry", "euclidean"], ["--kernel", "spectral", "--nu", "2.5"]])
def test_every_row_of_the_table_is_a_flag_away(tmp_path, app_inside, flags):
    flags = [*flags, "--direction", "displacement", "--lengthscale", "0.3"]
    result = app_inside("train_sphere", *SMALL, *flags, "--out", tmp_path / "run")
    assert result.returncode == 0, result.stderr


@pytest.mark.usefixtures("no_figures")
def test_settings_in_a_file_and_a_recipe_come_before_flags(tmp_path, app_inside):
    """Gaussian latents through a plain MLP, Adam, a learning rate that stays: trained, saved, drawn from."""
    out, file = tmp_path / "run", tmp_path / "settings.json"
    optimizer = {"beta2": 0.99, "warmup_steps": 1, "steps": 5}
    file.write_text(json.dumps({"optimizer": optimizer, "run": {"log_every": 1}}))
    flags = ["--recipe", "paper", "--config", file, "--optimizer", "adam", "--steps", 2, "--eval-draws", 1]
    result = app_inside("train_sphere", "--batch-size", 64, *flags, "--out", out)
    assert result.returncode == 0, result.stderr
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [record["lr"] for record in records] == [1.5e-3, 1.5e-3]
    config = json.loads((out / "config.json").read_text())
    assert (config["optimizer"]["beta2"], config["optimizer"]["decay_fraction"]) == (0.99, 0.0)
    assert json.loads((out / "model" / "config.json").read_text())["codebook_size"] == 0
    assert app_inside("sample", out, "--n", 5, "--out", tmp_path / "a.csv").returncode == 0
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 6


@pytest.mark.usefixtures("no_figures")
def test_a_run_is_repeated_from_its_config(finished, tmp_path, app_inside):
    result = app_inside("train_sphere", "--config", finished / "config.json", "--out", tmp_path / "run")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "run" / "config.json").read_bytes() == (finished / "config.json").read_bytes()
    table = [[float(a) for a in row.split(",")] for row in (finished / "samples.csv").read_text().split()[1:]]
    again = (tmp_path / "run" / "samples.csv").read_text().split()[1:]
    assert [[float(a) for a in row.split(",")] for row in again] == [
        pytest.approx(row, abs=1e-2) for row in table
    ]


def test_the_best_weights_are_sampled_and_scored_on_request(finished, tmp_path, app_inside):
    before = (finished / "metrics.json").read_bytes()
    for name, flags in (("last", ()), ("best", ("--best",))):
        result = app_inside("sample", finished, "--n", 20, "--out", tmp_path / name, *flags)
        assert result.returncode == 0, result.stderr
    records = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    scores = {record["step"]: record["validation"] for record in records if "validation" in record}
    same = (tmp_path / "last").read_text() == (tmp_path / "best").read_text()
    assert same == (min(scores, key=scores.__getitem__) == 12)
    assert app_inside("evaluate", finished, "--draws", 1, "--best").returncode == 0
    assert (finished / "metrics.json").read_bytes() == before


def test_points_are_not_chosen_among_candidates(finished, tmp_path, app_inside):
    result = app_inside("sample", finished, "--best-of", 2, "--out", tmp_path / "points.csv")
    assert result.returncode == 2
    assert "error: --best-of is for sequences" in result.stderr


def test_help_fits_on_two_screens(app_inside):
    for name in ("train_sphere", "train_synthetic", "train_qm9", "train_promoter"):
        result = app_inside(name, "--help")
        assert result.returncode == 0
        assert len(result.stdout.splitlines()) <= 100
        flags = re.findall(r"^│ (?:-h, )?--([a-z-]+)", result.stdout, re.MULTILINE)
        assert len(set(flags) - {"help"}) <= 26


def test_accelerate_launch(tmp_path):
    (tmp_path / "mine.csv").write_text("lon,lat\n" + "".join(f"{i},{i / 2}\n" for i in range(60)))
    command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "apps/train_sphere.py"]
    command += [*SMALL, "--data", str(tmp_path / "mine.csv"), "--out", str(tmp_path / "run")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "run" / "metrics.json").exists()


def test_two_processes_train_the_same_generator_as_one(finished, tmp_path):
    """The field is a statistic of the whole batch: shards of it give the same samples, to rounding."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node",
        "2",
        "--master_port",
        "29611",
    ]
    command += ["apps/train_sphere.py", *SMALL, "--out", str(tmp_path / "run")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    pair, single = (
        [[float(a) for a in line.split(",")] for line in (run / "samples.csv").read_text().splitlines()[1:]]
        for run in (tmp_path / "run", finished)
    )
    assert len(pair) == len(single)
    far = sum(abs(a - b) > 0.01 for p, s in zip(pair, single, strict=True) for a, b in zip(p, s, strict=True))
    assert far < 0.01 * len(pair)
