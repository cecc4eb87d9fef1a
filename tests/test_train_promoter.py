"""The promoters' applications end to end: a run and what it leaves, sampling, resuming, bad input.

Run by torchrun, this file is what each process of the last test does.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from drift_core.runs.domain import untrained
from drift_core.training.loop import train
from drift_core.training.parallel import make_accelerator
from drift_promoter.config import PromoterConfig
from drift_promoter.crop_field import CropField
from drift_promoter.domain import PromoterDomain
from drift_promoter.genome.benchmark import NAMES, TSS
from drift_promoter.model import PromoterGenerator

ROOT = Path(__file__).parents[1]
SMALL = ("--steps", "6", "--batch-size", "8", "--save-every", "3", "--eval-draws", "2")
FEW = {"batch": {"num_positives": 512}, "run": {"log_every": 2}}
METRICS = {
    "kmer_correlation", *(f"kmer{k}_correlation" for k in (3, 4, 5, 7, 8)), "bases_tv", "gc_w1", "cpg_w1",
    "distinct", "novelty", "conditioning", "conditioning_shuffled", "nearest_train",
}  # fmt: skip
MOTIFS = {"motif_placement", "motif_placement_shuffled"}
PLACE = re.compile(r">(chr\w+|toy):(\d+)-(\d+)\([+-]\) \d+")

Run = Callable[..., subprocess.CompletedProcess[str]]


def in_file(folder: Path, **groups: object) -> tuple[str, Path]:
    """Flags for settings without a flag, which stand in a file: a few data attract, and more is logged."""
    path = folder / "settings.json"
    path.write_text(json.dumps({**FEW, **groups}))
    return "--config", path


@pytest.fixture(scope="module")
def cache(make_cache: Callable[[], Path]) -> Path:
    """A cache of extracted windows that is not the user's."""
    return make_cache()


@pytest.fixture(autouse=True)
def own_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few sequences in reports of runs inside this process."""
    monkeypatch.setattr(import_module("drift_promoter.evaluate"), "SAMPLES", 40)
    monkeypatch.setattr(PromoterDomain, "num_samples", 40)
    monkeypatch.setattr("drift_promoter.domain.VALIDATION", 40)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """A finished run on the toy data, started as a user does, on one thread."""
    folder = tmp_path_factory.mktemp("runs")
    out, flags = folder / "toy", [*SMALL, *in_file(folder)]
    command = [sys.executable, ROOT / "apps" / "train_promoter.py", *flags, "--out", out]
    env = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    result = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env=env, timeout=300, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "motif_placement" in result.stdout
    return out


@pytest.fixture(scope="module")
def mini() -> Path:
    """The miniature of the benchmark."""
    folder = os.environ.get("DRIFT_DATA_DIR")
    if not folder:
        pytest.skip("DRIFT_DATA_DIR names no data folder")
    return Path(folder) / "promoter" / "mini"


def refused(result: subprocess.CompletedProcess[str], *words: str) -> None:
    """One clear line, exit status 2, no traceback."""
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    message = lines[-1] if lines else result.stderr
    for word in words:
        assert word in message


def fasta(path: Path) -> dict[str, str]:
    """Sequences by header."""
    records = path.read_text().split(">")[1:]
    return {">" + head: body.replace("\n", "") for head, _, body in (r.partition("\n") for r in records)}


def test_a_run_leaves_what_it_promises(finished, run_card):
    config = json.loads((finished / "config.json").read_text())
    assert config["domain"] == "promoter"
    assert (config["optimizer"]["steps"], config["data"]["dataset"]) == (6, "toy")
    metrics = json.loads((finished / "metrics.json").read_text())
    assert set(metrics) == METRICS | MOTIFS
    assert all(set(m) == {"value", "std", "floor", "floor_std"} for m in metrics.values())
    records = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [2, 3, 4, 6]
    assert [record["step"] for record in records if "validation" in record] == [3, 6]
    assert (finished / "checkpoints" / "best.pt").exists()
    figures = {path.name for path in (finished / "figures").iterdir()}
    assert figures == {"kmers.png", "logos.png", "signals.png", "training.png"}
    assert all((finished / "figures" / name).read_bytes().startswith(b"\x89PNG") for name in figures)
    assert {path.name for path in (finished / "model").iterdir()} >= {"model.safetensors", "config.json"}
    sequences = fasta(finished / "samples.fasta")
    assert len(sequences) == 1_000
    assert all(len(letters) == 128 and set(letters) <= set("ACGT") for letters in sequences.values())
    assert all(PLACE.fullmatch(head) for head in sequences)
    assert len(run_card(finished, signal=torch.rand(1_000, 128, 2))) == 1_000


def test_samples_are_determined_by_their_seed(finished, tmp_path, app_inside):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        result = app_inside(
            "sample", finished, "--n", 50, "--seed", seed, "--out", tmp_path / f"{name}.fasta"
        )
        assert result.returncode == 0, result.stderr
    a, b, c = (fasta(tmp_path / f"{name}.fasta") for name in "abc")
    assert a == b != c
    assert len(a) == 50
    for head in a:
        place = PLACE.fullmatch(head)
        assert int(place[3]) - int(place[2]) == 128
    before = (tmp_path / "a.fasta").read_bytes()
    refused(app_inside("sample", finished, "--out", tmp_path / "a.fasta"), "--out", "a.fasta exists")
    assert (tmp_path / "a.fasta").read_bytes() == before


def test_evaluating_again_rewrites_the_metrics(finished, app_inside):
    before = json.loads((finished / "metrics.json").read_text())
    assert app_inside("evaluate", finished, "--draws", 1, "--on", "val").returncode == 0
    assert json.loads((finished / "metrics.json").read_text()) == before
    result = app_inside("evaluate", finished, "--draws", 1)
    assert result.returncode == 0, result.stderr
    after = json.loads((finished / "metrics.json").read_text())
    assert after["bases_tv"] != before["bases_tv"]
    assert after["bases_tv"]["value"] == pytest.approx(before["bases_tv"]["value"], rel=0.1)


@pytest.mark.usefixtures("brief", "no_figures")
def test_a_resumed_run_ends_as_the_whole_one(tmp_path, app_inside):
    """Cut back to step 3, the run goes on to the same samples and the same log, bit for bit."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    flags = [*SMALL, *in_file(tmp_path), "--eval-draws", 1]
    result = app_inside("train_promoter", *flags, "--out", whole)
    assert result.returncode == 0, result.stderr
    shutil.copytree(whole, cut)
    (cut / "checkpoints" / "step_000000006.pt").unlink()
    for name in ("samples.fasta", "metrics.json", "model/model.safetensors"):
        (cut / name).unlink()
    result = app_inside("train_promoter", "--resume", "--out", cut)  # the other settings come from the run
    assert result.returncode == 0, result.stderr
    for name in ("samples.fasta", "metrics.jsonl", "metrics.json", "model/model.safetensors"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes()
    refused(app_inside("train_promoter", "--resume", "--out", cut, "--crop", 6), "crop was None, is 6")


SOFTMAX = {"output": "softmax", "latents": "gaussian"}


def trains_and_samples(tmp_path: Path, app_inside: Run, flags: list[str], groups: dict[str, Any]) -> None:
    """A run of two steps has its metrics, and three samples can be drawn from it."""
    out = tmp_path / "run"
    flags = [*SMALL, "--steps", 2, "--eval-draws", 1, *flags, *in_file(tmp_path, **groups)]
    result = app_inside("train_promoter", *flags, "--out", out)
    assert result.returncode == 0, result.stderr
    assert set(json.loads((out / "metrics.json").read_text())) == METRICS | MOTIFS
    result = app_inside("sample", out, "--n", 3, "--out", tmp_path / "three.fasta")
    assert result.returncode == 0, result.stderr
    assert len(fasta(tmp_path / "three.fasta")) == 3


@pytest.mark.parametrize(
    ("flags", "groups"),
    [
        (["--kernel", "matern", "--nu", "2.5"], {}),
        ([], {"network": {"codebook_size": 64, "codebook_span": 32}}),
    ],
    ids=["unconditional", "codebook"],
)
def test_generators_without_conditions_train_and_are_drawn(brief, tmp_path, app_inside, flags, groups):
    trains_and_samples(tmp_path, app_inside, ["--no-condition", *flags], groups)
    assert (tmp_path / "run" / "figures" / "kmers.png").exists()


@pytest.mark.usefixtures("brief", "no_figures")
@pytest.mark.parametrize(
    ("flags", "groups"),
    [
        (["--geometry", "euclidean", "--kernel", "gaussian"], {}),
        (["--crop", "0", "--direction", "displacement"], {"network": SOFTMAX}),
        (["--recipe", "paper", "--preset", "small"], {}),
    ],
    ids=["euclidean", "displacement", "paper"],
)
def test_baselines_are_a_flag_or_a_file_away(tmp_path, app_inside, flags, groups):
    trains_and_samples(tmp_path, app_inside, flags, groups)


def test_the_signal_of_the_same_strand_alone(brief, tmp_path, app_inside):
    """The run remembers that it has one track, for whatever is done with it later."""
    out = tmp_path / "run"
    flags = [*in_file(tmp_path, data={"signal_tracks": 1}), "--eval-draws", 1, "--out", out]
    result = app_inside("train_promoter", *SMALL, "--steps", 2, *flags)
    assert result.returncode == 0, result.stderr
    assert json.loads((out / "config.json").read_text())["data"]["signal_tracks"] == 1
    generator = PromoterGenerator.from_pretrained(out / "model")
    assert generator.input.in_channels == generator.position_channels + 1
    assert app_inside("sample", out, "--n", 3, "--out", tmp_path / "three.fasta").returncode == 0
    assert len(fasta(tmp_path / "three.fasta")) == 3
    before = (out / "metrics.json").read_text()
    assert app_inside("evaluate", out, "--draws", 1).returncode == 0
    assert (out / "metrics.json").read_text() == before


def test_real_windows(mini, brief, tmp_path, app_inside):
    """A table beside the genome, here every 64th of the tiled windows; samples are named by test windows."""
    data, out = tmp_path / "data", tmp_path / "run"
    data.mkdir()
    for name in set(NAMES) - {TSS}:
        (data / name).symlink_to(mini / name)
    header, *rows = (mini / "tiled.tsv").read_text().splitlines()
    (data / "tiled.tsv").write_text("\n".join([header, *rows[::64]]) + "\n")
    flags = [*SMALL, "--batch-size", 2, "--steps", 2, "--eval-draws", 1, *in_file(tmp_path)]
    result = app_inside("train_promoter", *flags, "--tss", "tiled.tsv", "--data-dir", data, "--out", out)
    assert result.returncode == 0, result.stderr
    assert set(json.loads((out / "metrics.json").read_text())) == METRICS
    sequences = fasta(out / "samples.fasta")
    assert len(sequences) == 40
    assert all(len(letters) == 1024 for letters in sequences.values())
    assert {PLACE.fullmatch(head)[1] for head in sequences} <= {"chr8", "chr9"}


def test_a_folder_that_holds_a_run_is_left_alone(finished, app_inside):
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    refused(app_inside("train_promoter", *SMALL, "--out", finished), "--out", "already holds a run")
    assert before == {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--dataset", "enhancer"], ["--dataset", "enhancer"]),
        (["--preset", "huge"], ["--preset", "huge"]),
        (["--crpo", "8"], ["--crpo"]),
        (["--signal-tracks", "1"], ["signal_tracks has no flag", "--config"]),
        (["--kernel", "spectral"], ["--kernel", "spectral"]),
        (["--nu", "2.5"], ["--nu is for --kernel matern"]),
        (["--lengthscale", "long", "--crop", "0"], ["lengthscale", "long"]),
        (["--lengthscale", "1"], ["--lengthscale is for whole sequences"]),
        (["--crop", "8", "--geometry", "euclidean"], ["--crop is for the sphere", "--geometry euclidean"]),
        (["--recipe", "paper", "--no-condition"], ["signal", "tracks", "--condition is off"]),
        (["--recipe", "genome"], ["--recipe", "genome"]),
        (["--crop", "200"], ["crops", "128", "200"]),
        (
            ["--dataset", "promoter", "--data-dir", "nowhere"],
            ["nowhere", "--data-dir", "drift_promoter.genome.archive"],
        ),
    ],
    ids=lambda value: " ".join(value),
)
def test_bad_flags(tmp_path, app_inside, flags, words):
    out = tmp_path / "run"
    refused(app_inside("train_promoter", *flags, "--out", out), *words)
    assert not out.exists()


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ({"kernel": {"kernel": "spectral"}}, ["kernel", "spectral"]),
        ({"data": {"signal_tracks": 3}}, ["signal_tracks: 3"]),
        ({"kernel": {"signal_lengthscale": -1}}, ["must be positive", "-1"]),
        ({"optimizer": {"max_step": 4}}, ["max_step", "4"]),
        ({"network": {"codebook_size": 64, "codebook_span": 60}}, ["must divide", "128", "60"]),
    ],
    ids=str,
)
def test_bad_files(tmp_path, app_inside, groups, words):
    out = tmp_path / "run"
    refused(app_inside("train_promoter", *in_file(tmp_path, **groups), "--out", out), *words)
    assert not out.exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("chrom\tstart\nchr1\t5000\n", ["sites.tsv", "no column chr or TSS or strand"]),
        ("chr\tTSS\tstrand\nchr1\tnear\t+\n", ["sites.tsv, line 2", "'near'"]),
        (None, ["no table", "sites.tsv"]),
    ],
    ids=["no columns", "no number", "no file"],
)
def test_bad_tables_leave_nothing(tmp_path, cache, app_inside, text, words):
    data, out = tmp_path / "data", tmp_path / "run"
    data.mkdir()
    for name in set(NAMES) - {TSS}:
        (data / name).touch()  # the table is read first
    if text is not None:
        (data / "sites.tsv").write_text(text)
    before = sorted(cache.glob("drift/promoter/windows-*"))
    flags = ["--tss", "sites.tsv", "--data-dir", data, "--out", out]
    refused(app_inside("train_promoter", *SMALL, *flags), *words)
    assert not out.exists()
    assert sorted(cache.glob("drift/promoter/windows-*")) == before


WAYS: dict[str, dict[str, Any]] = {
    "whole": {"crop": 0},
    "crops": {"crop": 8},
    "k-mers": {"crop": 8, "positives": "counted", "condition_clusters": 4},
}


def train_shared(out: Path, **settings: Any) -> None:
    """Five steps of a run whose batch does not divide evenly, in float64; leave the weights in `out`."""
    sizes = {"steps": 5, "batch_size": 5, "num_positives": 64, "num_negatives": 2, "log_every": 5}
    domain, config = PromoterDomain(), PromoterConfig.of(**sizes, **settings)
    data = domain.load(config)
    generator, conditions = untrained(domain, config, data).double(), domain.condition_sampler(config, data)
    field = domain.field(config, data)
    if isinstance(field, CropField):
        field = replace(field, max_negatives=50)
    train(
        generator,
        field,
        domain.data_sampler(config, data),
        config,
        out,
        sample_condition=lambda n, generator: conditions(n, generator).double(),
    )
    if make_accelerator().is_main_process:
        torch.save([p.detach() for p in generator.parameters()], out / "weights.pt")


def train_all_ways(out: Path) -> None:
    """By the drift of whole sequences, of crops, and of counted k-mers."""
    for way, settings in WAYS.items():
        train_shared(out / way, **settings)


def test_two_processes_train_the_same_generator_as_one(tmp_path):
    """Samples, their conditions and all crops are pooled; each excludes itself."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += [__file__, str(tmp_path / "pair")]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, env=env, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    train_all_ways(tmp_path / "one")
    for way in WAYS:
        one, pair = (tmp_path / name / way for name in ("one", "pair"))
        a, b = (torch.load(out / "weights.pt", weights_only=True) for out in (one, pair))
        assert max(float((p - q).abs().max()) for p, q in zip(a, b, strict=True)) < 1e-9
        record, other = (json.loads((out / "metrics.jsonl").read_text()) for out in (one, pair))
        assert other == pytest.approx(record, rel=1e-6)


if __name__ == "__main__":
    train_all_ways(Path(sys.argv[1]))
