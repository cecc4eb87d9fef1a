"""Faults of every kind: each ends in the right error, or in nothing at all, and no earlier file is harmed.

DRIFT_FAULTS=10 tries ten times as many of the random ones.
"""

import hashlib
import io
import json
import os
import pickle
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
import torch
from drift_core import Euclidean, Gaussian, KernelField, TrainConfig, train
from drift_core.lengthscale import parse_lengthscales
from drift_core.training.config import to_json
from drift_sphere.domain import SphereConfig, SphereDomain
from torch import Tensor, nn

MORE = int(os.environ.get("DRIFT_FAULTS", "1"))
SERVER = Path(__file__).with_name("crash_server.py")
OFTEN = str(Path(__file__).with_name("often.json"))
SMALL = ("--steps", "40", "--batch-size", "64", "--save-every", "5", "--config", OFTEN, "--eval-draws", "2")

App = Callable[..., subprocess.CompletedProcess[str]]
Fault = Callable[[str], AbstractContextManager[None]]
Ask = Callable[..., dict[str, Any]]


def contents(folder: Path) -> dict[str, str]:
    """Digest of every file under a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def outcome(run: Path) -> dict[str, str]:
    """Digest of what is in every file of a run but those that name its folder or its command.

    Of checkpoints it is that of their values: pickles of equal values differ.
    """
    checkpoints = {path.name: repr(plain(torch.load(path, weights_only=True))) for path in run.rglob("*.pt")}
    other = (".pt", "config.json", "environment.json", "report.html")
    files = {name: digest for name, digest in contents(run).items() if not name.endswith(other)}
    return files | {name: hashlib.sha256(text.encode()).hexdigest() for name, text in checkpoints.items()}


def plain(value: object) -> object:
    """The value, with the bytes of tensors in their place."""
    if isinstance(value, dict):
        return [(key, plain(item)) for key, item in sorted(value.items(), key=str)]
    return value.numpy().tobytes() if isinstance(value, Tensor) else value


def refused(result: subprocess.CompletedProcess[str], word: str = "") -> None:
    """Exit status 2 and, but for what the parser of the command line explains, one line."""
    assert result.returncode == 2, (result.args, result.stdout, result.stderr)
    assert "Traceback" not in result.stderr, result.stderr
    lines = [line for line in result.stderr.splitlines() if not line.startswith("warning: ")]
    assert lines[-1].startswith("error: ") or "─" in result.stderr, result.stderr
    assert word in result.stderr, result.stderr


# Killed processes.


@pytest.fixture(scope="module")
def ask() -> Iterator[Ask]:
    """Send a request to a crash server."""
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SERVER)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
    ) as process:
        assert process.stdin
        assert process.stdout

        def answer(**request: object) -> dict[str, Any]:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield answer
        process.stdin.close()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, ask: Ask) -> Path:
    """A finished run of train_sphere."""
    folder = tmp_path_factory.mktemp("runs")
    out, log = folder / "sphere", folder / "log"
    assert ask(job="app", args=[*SMALL, "--out", str(out)], log=str(log))["codes"] == [0], log.read_text()
    return out


def go_on(out: Path, *flags: str) -> list[str]:
    """Arguments that start a run, or continue it once it is there."""
    return ["--resume", "--out", str(out)] if (out / "config.json").exists() else [*flags, "--out", str(out)]


def test_a_run_killed_between_any_two_file_operations_ends_as_if_it_had_not(ask, fault, tmp_path):
    log = str(tmp_path / "log")
    whole = tmp_path / "whole"
    operations = ask(job="tiny", args=[str(whole)], log=log, out=str(whole))["operations"]
    assert operations > 40
    expected = outcome(whole)
    for operation in range(1, operations + 1):
        out = tmp_path / f"killed.{operation}"
        with fault("kills between file operations"):
            killed = ask(job="tiny", args=[str(out)], log=log, out=str(out), operation=operation)
            assert killed["codes"] == [-9]
            resume = ["--resume"] if (out / "config.json").exists() else []
            assert ask(job="tiny", args=[str(out), *resume], log=log)["codes"] == [0], Path(log).read_text()
            assert outcome(out) == expected
        shutil.rmtree(out)


def test_twenty_kills_at_random_moments_leave_the_metrics_as_they_were(finished, ask, fault, tmp_path):
    log, chance = str(tmp_path / "log"), random.Random(0)
    out, kills = tmp_path / "killed", 0
    while kills < 20 * MORE:  # most while it trains, the last few while it reports
        after = chance.uniform(0, 0.1 if kills % 20 < 17 else 4)
        with fault("kills at random"):
            codes = ask(job="app", args=go_on(out, *SMALL), log=log, out=str(out), after=after)["codes"]
            assert codes in ([-9], [0]), Path(log).read_text()
            kills += codes == [-9]
    assert ask(job="app", args=go_on(out), log=log)["codes"] == [0], Path(log).read_text()
    assert outcome(out) == outcome(finished)


# Damaged checkpoints and logs, in a run of a few milliseconds.


class Affine(nn.Linear):
    """x = A z + b."""

    def latent(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.randn(n, self.in_features, generator=generator)


def normal(n: int, generator: torch.Generator) -> Tensor:
    return torch.randn(n, 2, generator=generator)


def fit(out: Path, sample: Callable[[int, torch.Generator], Tensor] = normal, **settings: Any) -> nn.Module:
    torch.manual_seed(0)
    field = KernelField(Euclidean(), Gaussian, parse_lengthscales("1.0"))
    resume = settings.pop("resume", False)
    given = {"steps": 6, "batch_size": 8, "ema_decay": 0.9, "save_every": 3, "log_every": 2}
    config = TrainConfig.of(**given | settings)
    return train(Affine(2, 2), field, sample, config, out, resume=resume)


def damage(content: bytes, chance: random.Random) -> bytes:
    """The content cut short, with a bit flipped, with a stretch of noise, extended, or gone."""
    kind, place = chance.randrange(8), chance.randrange(len(content))
    if kind < 3:
        return content[:place]
    if kind < 6:
        return content[:place] + bytes([content[place] ^ 1 << chance.randrange(8)]) + content[place + 1 :]
    if kind == 6:
        noise = bytes(b ^ chance.randrange(1, 256) for b in content[place : place + 64])
        return content[:place] + noise + content[place + 64 :]
    return chance.choice([b"", b"\0" * len(content), content + b"\0", content * 2, b"{}"])


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with checkpoints at steps 3 and 6."""
    out = tmp_path_factory.mktemp("runs") / "fitted"
    fit(out)
    return out


def test_a_damaged_checkpoint_is_reported_and_the_one_before_used(fitted, tmp_path, fault, capfd):
    chance, expected = random.Random(1), outcome(fitted)
    content = (fitted / "checkpoints" / "step_000000006.pt").read_bytes()
    for i in range(60 * MORE):
        out = tmp_path / str(i)
        shutil.copytree(fitted, out)
        newest = out / "checkpoints" / "step_000000006.pt"
        newest.write_bytes(damage(content, chance))
        with fault("checkpoints"):
            fit(out, resume=True)
            assert f"{newest} is damaged" in capfd.readouterr().err
            assert outcome(out) == expected


def test_without_a_sound_checkpoint_nothing_is_written(fitted, tmp_path, fault, capfd):
    chance = random.Random(2)
    for i in range(40 * MORE):
        out = tmp_path / str(i)
        shutil.copytree(fitted, out)
        for path in (out / "checkpoints").iterdir():
            path.write_bytes(damage(path.read_bytes(), chance))
        before = contents(out)
        with fault("checkpoints"):
            with pytest.raises(ValueError, match=r"all checkpoints are damaged"):
                fit(out, resume=True)
            assert capfd.readouterr().err.count("is damaged") == 2
            assert contents(out) == before


def test_the_log_is_restored_from_the_checkpoint(fitted, tmp_path, fault):
    chance, expected = random.Random(3), outcome(fitted)
    out = tmp_path / "run"
    shutil.copytree(fitted, out)
    records = (out / "metrics.jsonl").read_bytes()
    for _ in range(40 * MORE):
        (out / "metrics.jsonl").write_bytes(damage(records, chance))
        with fault("logs"):
            fit(out, resume=True)
            assert outcome(out) == expected


class Trap:
    """Unpickling it leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_nothing_in_a_checkpoint_is_executed(fitted, tmp_path, fault, capfd):
    """Not even where the checksum, which anybody can compute, is right."""
    out, sprung = tmp_path / "run", tmp_path / "sprung"
    shutil.copytree(fitted, out)
    buffer = io.BytesIO()
    torch.save({"step": 6, "best": 0.0, "records": "", "model": Trap(sprung)}, buffer)
    for body in (buffer.getvalue(), pickle.dumps(Trap(sprung))):
        for path in (out / "checkpoints").iterdir():
            path.write_bytes(body + hashlib.sha256(body).digest())
        with fault("checkpoints"):
            with pytest.raises(ValueError, match="all checkpoints are damaged"):
                fit(out, resume=True)
            assert "holds more than tensors" in capfd.readouterr().err
            assert not sprung.exists()
    pickle.loads(pickle.dumps(Trap(sprung)))  # the trap is one
    assert sprung.exists()


# Disks.


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a tmpfs is not permitted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@dataclass
class Filling:
    """Sampler that fills the disk at one of its draws."""

    ballast: Path
    full_at: int
    draws: int = 0

    def __call__(self, n: int, generator: torch.Generator) -> Tensor:
        self.draws += 1
        if self.draws == self.full_at:
            with self.ballast.open("wb", buffering=0) as file, suppress(OSError):
                while True:
                    file.write(bytes(1024))
        return normal(n, generator)


def test_a_disk_that_fills_up_harms_no_earlier_file(small_disk, tmp_path, fault):
    fit(tmp_path / "whole", steps=12)
    ballast, expected = small_disk / "ballast", outcome(tmp_path / "whole")
    for step in range(2, 11):
        out = small_disk / f"run.{step}"
        with fault("full disks"):
            with pytest.raises(OSError, match=r"No space left on device: '.*(step_\d+.pt|metrics.jsonl)'"):
                fit(out, Filling(ballast, step + 2), steps=12)  # the first draw is a check of the data
            assert len(list((out / "checkpoints").iterdir())) == min(2, step // 3)
            ballast.unlink()
            fit(out, steps=12, resume=True)
            assert outcome(out) == expected
        shutil.rmtree(out)


def test_a_disk_too_small_for_the_checkpoints_is_refused_before_training(small_disk, fault, app_inside):
    with fault("full disks"):
        refused(app_inside("train_sphere", "--out", small_disk / "run"), "checkpoints need 23.7 MB")
        assert not (small_disk / "run" / "metrics.jsonl").exists()


def test_a_disk_that_cannot_be_written_is_refused_before_training(small_disk, fault, app_inside):
    fit(small_disk / "run")
    before = contents(small_disk)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with fault("read-only disks"):
        refused(app_inside("train_sphere", *SMALL, "--out", small_disk / "new"), "Read-only")
        with pytest.raises(OSError, match="Read-only"):
            fit(small_disk / "run", resume=True)
        assert contents(small_disk) == before


# Malformed input of the applications.


INTEGERS = [
    "steps", "batch-size", "micro-batch-size", "seed", "save-every", "eval-draws", "split-seed",
    "codebook-size",
]  # fmt: skip
FLAGS = [
    *((f"--{name}", value) for name in INTEGERS for value in ("", "x", "1.5", "1e3", "-1", "nan", "9" * 20)),
    *((f"--{name}", value) for name in ("lr", "step-size") for value in ("", "x", "nan", "0", "-1", "inf")),
    *(
        ("--lengthscale", value)
        for value in ("", "x", "0", "-1", "nan", "inf", "1:2:3", ":", "1:", "1,,2", "0.2,", "1e999", "auto:0")
    ),
    *(
        (f"--{name}", value)
        for name in ("kernel", "direction", "geometry", "dataset", "tracker")
        for value in ("", "x", "LAPLACE")
    ),
    *(("--kernel", k, "--nu", nu) for k in ("matern", "spectral") for nu in ("", "x", "nan", "-1", "0")),
    ("--kernel", "spectral", "--geometry", "euclidean"),
    *((f"--{name}", "1") for name in ("max-step", "keep", "clip-norm", "num-positives", "neighbors")),
    ("--nu", "2.5"),
    ("--recipe", "x"),
    ("--config", "nowhere.json"),
    ("--config", "."),
    ("--data", "nowhere.csv"),
    ("--data", "."),
    ("--data-dir", "nowhere", "--dataset", "fire"),
    ("--allow-changes",),
    ("--resume", "--out", "nowhere"),
    ("--steps",),
    ("--stepps", "1"),
    ("steps=1",),
    ("--", "1"),
]  # fmt: skip


def test_values_of_flags(tmp_path, app_inside, fault, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for flags in FLAGS:
        with fault("flags"):
            refused(app_inside("train_sphere", *flags, *(() if "--out" in flags else ("--out", "run"))))
            assert list(tmp_path.iterdir()) == []


_COUNTS = ("x", 1.5, -1, True, None, [], {}, 10**20)
_NUMBERS = ("x", float("nan"), -1, True, None, [])
IN_FILES = [
    *(("batch", name, value) for name in ("num_positives", "num_negatives") for value in _COUNTS[:4]),
    *(("optimizer", "warmup_steps", value) for value in _COUNTS),
    *(("run", name, value) for name in ("log_every", "keep") for value in _COUNTS),
    *(("optimizer", name, value) for name in ("clip_norm", "decay_power") for value in (*_NUMBERS, 0)),
    *(
        ("optimizer", name, value)
        for name in ("decay_fraction", "beta1", "beta2")
        for value in (*_NUMBERS, 1)
    ),
    *(("optimizer", name, value) for name in ("weight_decay", "ema_decay") for value in (*_NUMBERS[:4], [])),
    *(("optimizer", "max_step", value) for value in ("x", float("nan"), -1, 0, 4, "inf")),
    *(("kernel", name, value) for name in ("anneal", "neighbors") for value in _NUMBERS),
    ("optimiser", "lr", 1.0),
    ("optimizer", "rate", 1.0),
    ("optimizer", "optimizer", "sgd"),
]


def test_values_in_files(tmp_path, app_inside, fault, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "settings.json"
    for group, name, value in IN_FILES:
        file.write_text(json.dumps({group: {name: value}}))
        with fault("files of settings"):
            found = app_inside("train_sphere", "--config", file, "--out", "run")
            refused(found, group if group == "optimiser" else name)
            assert list(tmp_path.iterdir()) == [file]
    for text in ("", "{", "[]", "3", '{"optimizer": 3}', '{"lr": 1.0}'):
        file.write_text(text)
        with fault("files of settings"):
            refused(app_inside("train_sphere", "--config", file, "--out", "run"), "settings.json")


READERS = [
    ("sample", "--n", "0"),
    ("sample", "--n", "-5"),
    ("sample", "--n", "x"),
    ("sample", "--seed", "-1"),
    ("sample", "--seed", "1.5"),
    ("sample", "--out"),
    ("evaluate", "--draws", "0"),
    ("evaluate", "--draws", "x"),
    ("evaluate", "--on", "train"),
]


def test_values_of_flags_of_what_reads_a_run(finished, tmp_path, app_inside, fault):
    before = contents(finished)
    for name, *flags in READERS:
        out = ["--out", tmp_path / "x.csv"] if name == "sample" and "--out" not in flags else []
        with fault("flags"):
            refused(app_inside(name, finished, *out, *flags))
            assert contents(finished) == before
            assert list(tmp_path.iterdir()) == []


WORDS = [
    "north",
    "",
    " ",
    "--5",
    "1e",
    "0x1F",
    "1 2",
    "None",
    "NaN",
    "inf",
    "-inf",
    "½",
    "\0",
    "9" * 400,
    "a" * 200_000,
]
LATITUDES, LONGITUDES = ["90.1", "-91", "1e300", "-1e9"], ["361", "-181", "1e300", "1e9"]


def malformed_table(chance: random.Random) -> bytes:
    """A table of 30 events with one thing wrong, below the first row, which may be a header."""
    rows = [[f"{chance.uniform(-90, 90):.4f}", f"{chance.uniform(-180, 180):.4f}"] for _ in range(30)]
    row, column = chance.randrange(1, 30), chance.randrange(2)
    kind = chance.randrange(9)
    if kind < 3:
        rows[row][column] = chance.choice(WORDS)
    elif kind == 3:
        rows[row][column] = chance.choice([LATITUDES, LONGITUDES][column])
    elif kind == 4:
        del rows[row][column]
    elif kind == 5:
        rows[row].insert(column, "1.0")
    elif kind == 6:
        rows[row][column] = '"' + rows[row][column]
    elif kind == 7:
        rows = rows[: chance.randrange(1, 10)]
    header = chance.choice(["", "", "# events\n", "latitude,longitude\n", "Lat , LNG \n"])
    table = (header + "\n".join(map(",".join, rows))).encode()
    if kind == 8:
        end = chance.randrange(len(header), len(table))
        table = chance.choice(
            [table[:end] + b"\xff" + table[end:], b"latitude,depth\n" + table, b"\xfe\xff" + table]
        )
    return table


def test_tables(tmp_path, app_inside, fault):
    """The reader names the file, in an error of which the command line, tried on some, makes one line."""
    path, chance = tmp_path / "mine.csv", random.Random(4)
    for i in range(170 * MORE):
        path.write_bytes(malformed_table(chance))
        with fault("tables"):
            if i % 5 == 0:
                refused(app_inside("train_sphere", "--data", path, "--out", tmp_path / "run"), "mine.csv")
                assert list(tmp_path.iterdir()) == [path]
            else:
                with pytest.raises((ValueError, OSError), match=r"mine\.csv[^\n]*$"):
                    SphereDomain().load(SphereConfig.of(data=path))


def test_settings_of_a_run(finished, tmp_path, app_inside, fault):
    """Cut short, of other types: refused. With a bit flipped it may also be another sound file."""
    run, chance = tmp_path / "run", random.Random(5)
    shutil.copytree(finished, run)
    sound = (run / "config.json").read_bytes()
    settings = json.loads(sound)
    cut = [sound[: chance.randrange(len(sound) - 2)] for _ in range(30 * MORE)]
    typed = [
        json.dumps({**settings, group: {**settings[group], name: value}}).encode()
        for group, found in to_json(SphereConfig()).items()
        for name in found
        for value in ([], {"a": 1})
    ]
    typed += [json.dumps({**settings, "domain": value}).encode() for value in (None, 1, "moon", [], "../x")]
    other = [
        b"[" * 100_000,
        b"\xff",
        b'{"domain": "sphere", "optimizer": {"steps": NaN}}',
        b'"sphere"',
        b"{}" * 2,
    ]
    commands = ("sample", run, "--out", tmp_path / "x.csv"), ("train_sphere", "--resume", "--out", run)
    for text, command in zip([*cut, *typed, *other], cycle(commands), strict=False):
        (run / "config.json").write_bytes(text)
        before = contents(run)
        with fault("settings"):
            refused(app_inside(*command))
            assert contents(run) == before
    for _ in range(30 * MORE):
        place = chance.randrange(len(sound))
        flipped = bytes([sound[place] ^ 1 << chance.randrange(8)])
        (run / "config.json").write_bytes(sound[:place] + flipped + sound[place + 1 :])
        with fault("settings"):
            result = app_inside("sample", run, "--n", "3", "--out", tmp_path / "x.csv")
            if result.returncode:
                refused(result)
            (tmp_path / "x.csv").unlink(missing_ok=True)


def test_models(finished, tmp_path, app_inside, fault):
    """With SHA256SUMS any change is noticed; without, what cannot be read, and what is of another module."""
    run, chance = tmp_path / "run", random.Random(6)
    shutil.copytree(finished, run)
    for name, times in (("model.safetensors", 40), ("config.json", 30)):
        sound = (run / "model" / name).read_bytes()
        for _ in range(times * MORE):
            (run / "model" / name).write_bytes(damage(sound, chance))
            with fault("models"):
                refused(app_inside("sample", run, "--out", tmp_path / "x.csv"), name)
        (run / "model" / name).write_bytes(sound)
    (run / "model" / "SHA256SUMS").unlink()
    sound = (run / "model" / "model.safetensors").read_bytes()
    header = 8 + int.from_bytes(sound[:8], "little")
    for content in [sound[: chance.randrange(len(sound))] for _ in range(20)] + [
        chance.randbytes(header) + sound[header:] for _ in range(20)
    ]:
        (run / "model" / "model.safetensors").write_bytes(content)
        with fault("models"):
            refused(app_inside("sample", run, "--out", tmp_path / "x.csv"), "holds no SphereGenerator")
    (run / "model" / "model.safetensors").write_bytes(sound)
    for text in (
        "{",
        "[]",
        '{"width": 7}',
        '{"width": "x"}',
        '{"codebook_size": 0}',
        '{"blocks": -1}',
        '{"codebook_size": 1e99}',
    ):
        (run / "model" / "config.json").write_text(text)
        with fault("models"):
            refused(app_inside("sample", run, "--out", tmp_path / "x.csv"), "model")
    assert not (tmp_path / "x.csv").exists()


def test_folders_that_hold_no_run(finished, tmp_path, app_inside, fault):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("mine")
    (tmp_path / "odd" / "config.json").mkdir(parents=True)
    shutil.copytree(finished, tmp_path / "bare")
    shutil.rmtree(tmp_path / "bare" / "model")
    shutil.copytree(finished, tmp_path / "hollow")
    (tmp_path / "hollow" / "model" / "model.safetensors").unlink()
    before = contents(tmp_path)
    for name in ("empty", "file", "odd", "nowhere", "file/below", "bare", "hollow"):
        for app, *flags in (("sample", "--out", tmp_path / "x.csv"), ("evaluate",)):
            with fault("folders"):
                refused(app_inside(app, tmp_path / name, *flags), str(tmp_path))
                assert contents(tmp_path) == before
    for name in ("file", "odd", "file/below", "bare"):
        with fault("folders"):
            refused(app_inside("train_sphere", *SMALL, "--out", tmp_path / name), name.split("/")[0])
            assert contents(tmp_path) == before


def test_more_than_five_hundred_malformed_inputs_were_tried(tried):
    kinds = {"checkpoints", "files of settings", "flags", "folders", "logs", "models", "settings", "tables"}
    if not kinds <= tried.keys():
        pytest.skip("tests of this file were left out")
    assert sum(tried[kind] for kind in kinds) > 500


# The cache of downloads.

TABLE = b"latitude,longitude\n" + b"1,2\n" * 12
SHA256 = hashlib.sha256(TABLE).hexdigest()


@pytest.fixture
def source() -> Iterator[tuple[str, dict[str, Any]]]:
    """Address of a slow server of TABLE, and how it is to behave."""
    mode: dict[str, Any] = {"content": TABLE, "pause": 0.0}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(TABLE)))
            self.end_headers()
            half = len(mode["content"]) // 2
            self.wfile.write(mode["content"][:half])
            self.wfile.flush()
            time.sleep(mode["pause"])
            self.wfile.write(mode["content"][half:])

        def log_message(self, *args: object) -> None:
            pass

        def handle(self) -> None:  # a client may be killed
            with suppress(OSError):
                super().handle()

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", mode
        server.shutdown()


def test_several_processes_fill_the_cache_at_once(source, ask, fault, tmp_path):
    source[1]["pause"] = 0.5
    job = partial(
        ask, job="fill_cache", args=[source[0], SHA256, str(tmp_path / "cache")], log=str(tmp_path / "log")
    )
    with fault("cache"):
        assert job(copies=4)["codes"] == [0] * 4, (tmp_path / "log").read_text()
        files = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
        assert [path.name for path in files] == ["fire.csv"]
        assert files[0].read_bytes() == TABLE


@pytest.mark.parametrize(
    ("content", "word"),
    [(TABLE[:-9], "ConnectionError"), (b"", "ConnectionError"), (TABLE[::-1], "ValueError")],
)
def test_bad_downloads_leave_nothing(source, ask, fault, tmp_path, content, word):
    log = tmp_path / "log"
    job = partial(ask, job="fill_cache", args=[source[0], SHA256, str(tmp_path / "cache")], log=str(log))
    source[1]["content"] = content
    with fault("cache"):
        assert job()["codes"] == [1]
        assert word in log.read_text().splitlines()[-1]
        assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
        source[1]["content"] = TABLE
        assert job()["codes"] == [0]


def test_a_damaged_file_in_the_cache_is_downloaded_again(source, ask, fault, tmp_path):
    job = partial(ask, job="fill_cache", args=[source[0], SHA256, str(tmp_path)], log=str(tmp_path / "log"))
    assert job()["codes"] == [0]
    (path,) = tmp_path.rglob("fire.csv")
    path.write_bytes(TABLE[:-5])
    with fault("cache"):
        assert job()["codes"] == [0]
        assert path.read_bytes() == TABLE
