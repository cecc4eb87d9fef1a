"""The molecules' applications end to end: a run and what it leaves, sampling, resuming, bad input."""

import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SMALL = ("--steps", "6", "--batch-size", "16", "--save-every", "3", "--eval-draws", "2")
METRICS = {
    "valid", "unique_of_valid", "unique_of_all", "novel", "novel_of_unique", "valid_and_novel",
    "unique_of_10000", "coverage", "nearest_train",
    "lengths_w1", "tokens_tv", "bigrams_tv", "rings_tv", "ring_sizes_tv", "frechet",
}  # fmt: skip
ALKANES = ["C" * i for i in range(1, 31)] + ["C" * i + "O" for i in range(1, 30)]

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(autouse=True)
def fewer_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """300 in place of 10,000, in the applications that run inside the tests' process."""
    monkeypatch.setattr(importlib.import_module("drift_qm9.evaluate"), "MANY", 300)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on the toy data, started as a user does, on one thread."""
    out = tmp_path_factory.mktemp("runs") / "toy"
    flags = [*SMALL, *in_file(out.parent, run={"log_every": 2}), "--out", out]
    command = [sys.executable, str(ROOT / "apps" / "train_qm9.py"), *map(str, flags)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    assert "unique_of_all" in result.stdout
    return out


def in_file(folder: Path, **groups: object) -> tuple[str, Path]:
    """Flags for settings without a flag, which stand in a file."""
    path = folder / "settings.json"
    path.write_text(json.dumps(groups))
    return "--config", path


@pytest.fixture
def smi(tmp_path: Path) -> Callable[..., Path]:
    def write(*lines: str) -> Path:
        path = tmp_path / "mine.smi"
        path.write_text("".join(f"{line}\n" for line in lines))
        return path

    return write


def refused(result: subprocess.CompletedProcess[str], *words: str) -> None:
    """One clear line, exit status 2, no traceback."""
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    message = lines[-1] if lines else result.stderr
    for word in words:
        assert word in message


def test_a_run_leaves_what_it_promises(finished, run_card):
    config = json.loads((finished / "config.json").read_text())
    assert config["domain"] == "qm9"
    assert (config["optimizer"]["steps"], config["data"]["dataset"]) == (6, "toy")
    metrics = json.loads((finished / "metrics.json").read_text())
    assert set(metrics) == METRICS
    assert all(set(m) == {"value", "std", "floor", "floor_std"} for m in metrics.values())
    records = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [2, 3, 4, 6]
    scores = {record["step"]: record["validation"] for record in records if "validation" in record}
    assert list(scores) == [3, 6]
    assert (finished / "checkpoints" / "best.pt").exists()
    figures = {path.name for path in (finished / "figures").iterdir()}
    assert figures == {"molecules.png", "properties.png", "training.png"}
    assert all((finished / "figures" / name).read_bytes().startswith(b"\x89PNG") for name in figures)
    assert {path.name for path in (finished / "model").iterdir()} >= {"model.safetensors", "config.json"}
    assert len((finished / "samples.smi").read_text().split("\n")) == 2_001
    assert len(run_card(finished)) == 1_000


def test_samples_are_determined_by_their_seed(finished, tmp_path, app_inside):
    from drift_qm9 import tokenize

    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        result = app_inside("sample", finished, "--n", 50, "--seed", seed, "--out", tmp_path / f"{name}.smi")
        assert result.returncode == 0, result.stderr
    a, b, c = ((tmp_path / f"{name}.smi").read_text() for name in "abc")
    assert a == b != c
    lines = a.split("\n")
    assert len(lines) == 51
    assert all(len(tokenize(line)) <= 16 for line in lines)
    refused(app_inside("sample", finished, "--out", tmp_path / "a.smi"), "--out", "a.smi exists")
    assert (tmp_path / "a.smi").read_text() == a


def test_evaluating_again_rewrites_the_metrics(finished, app_inside):
    before = json.loads((finished / "metrics.json").read_text())
    assert app_inside("evaluate", finished, "--draws", 1, "--on", "val").returncode == 0
    assert json.loads((finished / "metrics.json").read_text()) == before
    result = app_inside("evaluate", finished, "--draws", 3)
    assert result.returncode == 0, result.stderr
    after = json.loads((finished / "metrics.json").read_text())
    assert after["tokens_tv"] != before["tokens_tv"]
    assert after["tokens_tv"]["value"] == pytest.approx(before["tokens_tv"]["value"], rel=0.1)


def test_candidates_are_as_many_as_asked_for(finished, tmp_path, app_inside):
    drawn = {}
    for name, flags in (("run", ()), ("six", ("--best-of", 6)), ("one", ("--best-of", 1))):
        result = app_inside("sample", finished, "--n", 50, "--out", tmp_path / name, *flags)
        assert result.returncode == 0, result.stderr
        drawn[name] = (tmp_path / name).read_text()
    assert drawn["run"] == drawn["six"] != drawn["one"]  # the recipe of toy has six
    before = (finished / "metrics.json").read_bytes()
    result = app_inside("evaluate", finished, "--draws", 1, "--best-of", 1)
    assert result.returncode == 0, result.stderr
    assert (finished / "metrics.json").read_bytes() == before
    refused(app_inside("evaluate", finished, "--best-of", 0), "--best-of must be at least 1, got 0")


@pytest.mark.usefixtures("no_figures")
def test_a_resumed_run_ends_as_the_whole_one(tmp_path, app_inside):
    """Cut back to step 3, the run goes on to the same samples and the same log, bit for bit."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    flags = [*SMALL, *in_file(tmp_path, run={"log_every": 2}), "--eval-draws", 1]
    for out in (whole, cut):
        assert app_inside("train_qm9", *flags, "--out", out).returncode == 0
    (cut / "checkpoints" / "step_000000006.pt").unlink()
    (cut / "samples.smi").unlink()
    result = app_inside("train_qm9", "--resume", "--out", cut)  # the other settings come from the run
    assert result.returncode == 0, result.stderr
    for name in ("samples.smi", "metrics.jsonl", "model/model.safetensors"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes()
    changed = app_inside("train_qm9", "--resume", "--out", cut, "--codebook-size", 2)
    refused(changed, "codebook_size was 0", "is 2")


def test_own_molecules(smi, tmp_path, app_inside):
    """With bad lines skipped and counted, whole-set positives, and every setting of the baselines."""
    path = smi("# mine", "C1CC unclosed", *ALKANES, "CCCl a token of others")
    network = {"latents": "gaussian", "position_channels": 0}
    flags = ["--data", path, "--geometry", "euclidean", "--direction", "displacement", "--skip-bad"]
    flags += [*in_file(tmp_path, network=network, batch={"num_positives": 1000}), "--out", tmp_path / "run"]
    result = app_inside("train_qm9", *SMALL, *flags, "--steps", 2, "--eval-draws", 1)
    assert result.returncode == 0, result.stderr
    assert "2 lines of" in result.stderr
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert set(metrics) == METRICS - {"coverage"}
    assert metrics["novel"]["floor"] is None


@pytest.mark.usefixtures("no_figures")
def test_the_published_setting_is_a_recipe_away(smi, tmp_path, app_inside):
    """No codebook, Adam, and a learning rate that stays."""
    file = in_file(tmp_path, optimizer={"beta2": 0.99, "warmup_steps": 1}, run={"log_every": 1})
    flags = ["--recipe", "paper", *file, "--optimizer", "adam", "--data", smi(*ALKANES)]
    flags += ["--out", tmp_path / "run"]
    result = app_inside("train_qm9", *SMALL, *flags, "--steps", 2, "--eval-draws", 1)
    assert result.returncode == 0, result.stderr
    records = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(record)["lr"] for record in records] == [3e-3, 3e-3]
    model = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    assert (model["codebook_size"], model["output"], model["position_channels"]) == (0, "softmax", 4)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([], ["mine.smi", "no molecule"]),
        ([*ALKANES, "C1CC"], ["mine.smi, line 60", "'C1CC'", "unclosed ring"]),
        ([*ALKANES, "CCCl"], ["mine.smi, line 60", "'Cl'", "30 of QM9"]),
        (["C" * 31, *ALKANES], ["mine.smi, line 1:", "31 tokens", "at most 30"]),
        (["CCO", "OCC"] * 40, ["mine.smi", "all 80 lines are one molecule"]),
        (ALKANES[:39], ["mine.smi", "39 molecules", "at least 40"]),
    ],
    ids=["empty", "not a molecule", "token", "long", "duplicates", "few"],
)
def test_bad_molecules(smi, tmp_path, app_inside, lines, words):
    out = tmp_path / "run"
    refused(app_inside("train_qm9", *SMALL, "--data", smi(*lines), "--out", out), *words)
    assert not out.exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--dataset", "zinc"], ["--dataset", "zinc"]),
        (["--preset", "huge"], ["--preset", "huge"]),
        (["--kernel", "spectral"], ["--kernel", "spectral"]),
        (["--lengthscale", "long"], ["lengthscale", "long"]),
        (["--codebook-size", "-1"], ["--codebook-size must be at least 0, got -1"]),
        (["--window", "4"], ["window has no flag; set it in a file, --config"]),
        (["--kernel", "laplace", "--nu", "2.5"], ["--nu is for --kernel matern or spectral; got laplace"]),
        (["--reweight", "0.5"], ["reweight has no flag; set it in a file, --config"]),
        (["--skip-bad"], ["--skip-bad is for files"]),
        (["--dataset", "qm9", "--data", "mine.smi"], ["--data is a file instead of --dataset qm9"]),
        (["--data", "nowhere.smi"], ["nowhere.smi"]),
        (["--dataset", "qm9", "--data-dir", "nowhere"], ["nowhere"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_bad_flags(tmp_path, app_inside, flags, words):
    out = tmp_path / "run"
    refused(app_inside("train_qm9", *flags, "--out", out), *words)
    assert not out.exists()


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ({"network": {"global_channels": 0}}, ["global_channels must be at least 1, got 0"]),
        ({"network": {"position_channels": -2}}, ["position_channels", "-2"]),
        ({"kernel": {"reweight": 1.0}}, ["reweight must lie in [0, 1), got 1.0"]),
        ({"kernel": {"reweight": 0.5}}, ["reweight is for whole strings alone", "--codebook-size"]),
        ({"kernel": {"window": 1}}, ["window must be at least 2, got 1"]),
        ({"kernel": {"class_weight": 1.0}, "network": {"geometry": "euclidean"}}, ["are for the sphere"]),
        ({"kernel": {"kernel": "spectral"}}, ["settings.json: kernel", "spectral"]),
        ({"network": {"noise": "gaussian"}}, ["settings.json", "'noise'"]),
        ({"optimizer": {"max_step": 4.0}}, ["max_step", "4"]),
    ],
    ids=str,
)
def test_bad_files(tmp_path, app_inside, groups, words):
    out = tmp_path / "run"
    refused(app_inside("train_qm9", *in_file(tmp_path, **groups), "--out", out), *words)
    assert not out.exists()
