"""The benchmark measures candidates that agree, and keeps what it measured in files that can be compared."""

import json
import time
from dataclasses import replace
from types import ModuleType

import pytest
import torch
from drift_core import Laplace, Sphere, smoothed_score
from drift_core.engine import disabled
from drift_core.runs.study import run_table
from drift_simplex import onehot_score, onehot_to_sphere

SMALL = {
    "points": {"SIZES": (256, 512), "QUERIES": 64, "REFERENCES": (256,), "POINTS": 64, "DIMENSIONS": (2, 8)},
    "fields": {"POINTS": 64, "ROTATIONS": (32, 64), "QUERIES": 16, "DATA": 1024, "BUFFER": 256},
    "simplex": {
        "SHAPES": ((4, 5), (6, 4)),
        "QUERIES": 8,
        "REFERENCES": 50,
        "SOFT": 20,
        "TRAINING_SET": 200,
        "KMER_LENGTH": 4,
    },
    "machine": {"_SIDE": 32, "_COPIED": 1000, "_EXPONENTS": 1000},
}
GROUPS = (
    *("S2", "R2", "R64", "H2", "references", "dimensions"),
    *("kernels", "eigenfunctions", "nearest", "couplings", "classes", "tokens", "soft", "kmers"),
)


@pytest.fixture
def small(import_app, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny sizes, and no processes for memory."""
    for module, sizes in SMALL.items():
        for name, value in sizes.items():
            monkeypatch.setattr(import_app(f"benchmarks.{module}"), name, value)
    monkeypatch.setattr(import_app("benchmarks.measure"), "extra_memory", lambda *_: 1.5)


def report(import_app, **seconds: float) -> tuple[ModuleType, object]:
    """A report of cases with the given times, each twice that of its baseline."""
    module = import_app("benchmarks.report")
    cases = [
        module.Result("S2", name, {"n": 4096, "m": 4096, "d": 3}, {
            "smoothed_score": module.Measured(value, 1.0, 2.0),
            "torch form": module.Measured(12 * value, 12.0, None, 1e-7),
            "hand-written loop": module.Measured(value / 2, 0.5, None, 1e-7),
        })
        for name, value in seconds.items()
    ]  # fmt: skip
    machine = {"processor": "abacus", "device": "cpu", "cores": 2, "threads": 2, "torch": "2.6", "load": 0.1}
    ceilings = {"sgemm_flops": 1e11, "copy_bytes": 1e10, "exps": 1e9}
    return module, module.Report(machine, ceilings, cases, {"KeOps": "pykeops is not installed"})


@pytest.fixture
def written(import_app, tmp_path):
    """Write a report of cases with the given times."""

    def write(name: str, **seconds: float):
        module, value = report(import_app, **seconds)
        module.write_report(tmp_path / name, value)
        return tmp_path / name

    return write


@pytest.mark.parametrize("group", GROUPS)
def test_candidates_compute_the_same(group, small, import_app):
    cases = import_app("benchmarks.groups").cases_of(group, "cpu")
    results = import_app("benchmarks.measure").measure(cases, 1, "cpu").cases
    assert [result.name for result in results] == [case.name for case in cases]
    for case, result in zip(cases, results, strict=True):
        assert len(result.candidates) > 1 or "n = 8, m = 200" in case.name
        for name, measured in result.candidates.items():
            assert measured.seconds > 0
            assert (measured.memory == 1.5) == (name in case.memory)
            assert (measured.error is not None and measured.error < 1e-4) or not case.same, name


def test_a_run_writes_a_report_and_a_plot(small, app_inside, import_app, tmp_path):
    out = tmp_path / "new" / "report.json"
    result = app_inside("benchmark", "run", "--only", "S2", "tokens", "--repeats", 1, "--out", out)
    assert result.returncode == 0, result.stderr
    value = json.loads(out.read_text())
    assert set(value) == {"machine", "ceilings", "cases", "skipped"}
    assert set(value["machine"]) == {"processor", "device", "cores", "threads", "torch", "load"}
    assert all(value["ceilings"][name] > 0 for name in ("sgemm_flops", "copy_bytes", "exps"))
    assert {case["group"] for case in value["cases"]} == {"S2", "tokens"}
    for case in value["cases"]:
        assert set(case) == {"group", "name", "sizes", "candidates"}
        assert all(set(c) == {"seconds", "ratio", "memory", "error"} for c in case["candidates"].values())
        assert next(iter(case["candidates"].values()))["ratio"] == 1
        assert case["name"] in result.stdout
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    shown = app_inside("benchmark", "show", out)
    assert shown.returncode == 0
    assert shown.stdout == result.stdout
    again = app_inside("benchmark", "run", "--out", out)
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)
    assert "exists" in again.stderr
    misnamed = app_inside("benchmark", "run", "--out", tmp_path / "report")
    assert misnamed.returncode == 2
    assert "does not end in .json" in misnamed.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused(app_inside):
    result = app_inside("benchmark", "run", "--device", "cuda")
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "--device cuda needs an NVIDIA GPU" in result.stderr


def test_reports_survive_their_file(written, import_app, tmp_path):
    module, value = report(import_app, a=0.25, b=1.0)
    assert module.read_report(written("report.json", a=0.25, b=1.0)) == value


def test_comparison_fails_if_a_case_became_slower(written, app_inside):
    old, same = written("old.json", a=0.1, b=1.0), written("same.json", a=0.11, b=0.5, new=9.0)
    result = app_inside("benchmark", "compare", old, same)
    assert result.returncode == 0
    assert "| a | 100 ms | 110 ms | 1.10 | |" in result.stdout
    slower = written("slower.json", a=0.15, b=1.0)
    result = app_inside("benchmark", "compare", old, slower)
    assert result.returncode == 1
    assert "| a | 100 ms | 150 ms | 1.50 | slower |" in result.stdout
    assert app_inside("benchmark", "compare", old, slower, "--tolerance", 1.6).returncode == 0


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"cases": []}', '{"cases": [{"name": "a", "candidates": {}}]}', "\x00\xff"]
)
def test_damaged_reports_are_named(text, written, app_inside, tmp_path):
    bad = tmp_path / "bad.json"
    bad.write_bytes(text.encode("latin-1"))
    for arguments in (("compare", bad, written("old.json", a=1.0)), ("show", bad)):
        result = app_inside("benchmark", *arguments)
        assert (result.returncode, result.stderr.count("\n")) == (2, 1)
        assert str(bad) in result.stderr


def test_what_cannot_be_compared_is_refused(written, app_inside, tmp_path):
    old = written("old.json", a=1.0)
    for arguments, text in (
        ((old, tmp_path / "missing.json"), "missing.json"),
        ((old, written("other.json", b=1.0)), "no case in common"),
        ((old, old, "--tolerance", 0), "--tolerance"),
    ):
        result = app_inside("benchmark", "compare", *arguments)
        assert (result.returncode, result.stderr.count("\n")) == (2, 1)
        assert text in result.stderr


def test_bad_flags_are_refused(app_inside, tmp_path):
    for arguments in (("--only", "S3"), ("--repeats", 0), ("--out", tmp_path / "report.txt")):
        result = app_inside("benchmark", "run", *arguments)
        assert (result.returncode, result.stderr.count("\n")) == (2, 1)


def test_claims_hold_or_fail(import_app):
    table = import_app("benchmarks.claims").claims_table(report(import_app, a=0.1)[1])
    assert "| S², time of the torch form | at least 10 | 12.00 | holds |" in table
    assert "| S², time over that of a hand-written loop | at most 1.5 | 2.00 | fails |" in table
    assert "KeOps" not in table


def test_memory_is_that_of_the_run_alone(import_app):
    """A broadcast logmap holds several arrays [n, m, 3]; the fused score none."""
    points, timing = import_app("benchmarks.points"), import_app("benchmarks.timing")
    n = 1024
    case = points._case("S2", n, n, points.SPACES["S2"], "cpu", "S2")
    array = n * n * 3 * 4 / 2**20
    memory = timing.extra_memory(case.build, points.LOGMAP, "cpu")
    assert memory is not None
    assert 2 * array < memory < 20 * array


def test_hand_written_loop_is_exact(import_app):
    module = import_app("benchmarks.handwritten")
    if module.missing():
        pytest.skip(module.missing())
    generator, sphere = torch.Generator().manual_seed(0), Sphere()
    x, y = (sphere.projx(torch.randn(n, 3, generator=generator)) for n in (100, 512))
    x[0], x[1] = y[0], -y[1]
    with disabled():
        expected = smoothed_score(sphere, Laplace(0.3), x.double(), y.double()).gradient
    assert torch.allclose(module.sphere_laplace(x, y, 0.3).double(), expected, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="100"):
        module.sphere_laplace(x, x, 0.3)


def test_what_the_machine_lacks_is_skipped_with_a_reason(import_app, monkeypatch: pytest.MonkeyPatch):
    module, points = import_app("benchmarks.handwritten"), import_app("benchmarks.points")
    monkeypatch.setenv("CC", "no-such-compiler")
    module._library.cache_clear()
    try:
        assert points.skipped()[points.LOOP] == "there is no C compiler"
        assert points.LOOP not in points.growing_n("S2", "cpu")[0].build()
    finally:
        module._library.cache_clear()


@pytest.mark.parametrize(("shape", "factor"), [((32, 35), 10), ((256, 4), 15)], ids=str)
def test_tokens_are_much_faster_than_broadcasting(shape, factor, import_app):
    module, generator = import_app("benchmarks.simplex"), torch.Generator().manual_seed(0)
    x = (2 * torch.randn(64, *shape, generator=generator)).softmax(dim=-1).sqrt()
    tokens = torch.randint(shape[1], (4096, shape[0]), generator=generator)
    y = onehot_to_sphere(tokens, shape[1])
    seconds, results = [], []
    for run in (
        lambda: onehot_score(Laplace(0.5), x, tokens).gradient,
        lambda: onehot_score(Laplace(0.5), x, tokens).gradient,
        lambda: module.broadcast_gradient(Laplace(0.5), x[:8], y, module.two_atan2),
    ):
        start = time.process_time()
        results.append(run())
        seconds.append(time.process_time() - start)
    off = (results[1][:8] - results[2]).flatten(1).norm(dim=1) / results[2].flatten(1).norm(dim=1)
    assert float(off.max()) < 1e-5
    assert seconds[2] / 8 > factor * seconds[1] / 64


def test_every_coupling_and_scale_is_a_row_and_the_table_is_resumed(import_app, tmp_path):
    toolbox = import_app("benchmarks.toolbox")
    table = toolbox.toolbox_table()
    rows, beds = (list(dict.fromkeys(place[i] for place in table.cells)) for i in (0, 1))
    assert (len(rows), len(beds)) == (14, 3)
    assert len({cell.folder for cell in table.cells.values()}) == 42
    some = {}
    for row in ("Sinkhorn, sample size held", "semi-dual, one scale", "the original field"):
        cell = table.cells[row, beds[1]]
        some[row, beds[1]] = replace(cell, config=cell.config.replace(steps=2, batch_size=16, eval_draws=1))
    small = replace(table, cells=some, seeds=2)
    report = run_table(small, tmp_path, 1)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.glob("strings/*/seed-*/metrics.json")}
    assert len(written) == 6
    assert run_table(small, tmp_path, 1).markdown == report.markdown
    assert all(path.stat().st_mtime_ns == before for path, before in written.items())
    assert all(f"| {row} | " in report.markdown for row, _ in some)
