"""Run folders: nothing is lost, nothing half-written."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from drift_core.config import RunConfig
from drift_core.parallel import make_accelerator
from drift_core.runs import atomic_path, open_run, read_config, read_records, restore_config, write_json


@dataclass(kw_only=True)
class Config(RunConfig):
    data: Path | None = None


def _write_half(path: Path) -> None:
    path.write_text("half")
    raise OSError("the disk is full")


@pytest.fixture
def accelerator():
    return make_accelerator()


def test_a_run_remembers_its_settings(tmp_path, accelerator):
    config = Config(out=tmp_path / "run", lengthscale="3:0.1", nu=float("inf"), data=Path("a.csv"))
    assert open_run(config, "sphere", accelerator) == tmp_path / "run"
    stored = read_config(tmp_path / "run")
    assert stored["domain"] == "sphere"
    assert restore_config(Config, stored) == config


def test_a_second_run_in_the_same_folder_is_refused(tmp_path, accelerator):
    config = Config(out=tmp_path / "run")
    open_run(config, "sphere", accelerator)
    before = (tmp_path / "run" / "config.json").read_bytes()
    with pytest.raises(ValueError, match=r"--out .*run already holds a run; name a new folder"):
        open_run(replace(config, seed=9), "sphere", accelerator)
    assert (tmp_path / "run" / "config.json").read_bytes() == before


def test_other_folders_and_files_are_left_alone(tmp_path, accelerator):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="is a file"):
        open_run(Config(out=tmp_path / "file"), "sphere", accelerator)
    with pytest.raises(ValueError, match="is not empty"):
        open_run(Config(out=tmp_path), "sphere", accelerator)
    assert (tmp_path / "file").read_text() == "mine"


def test_resuming_with_other_settings_says_which(tmp_path, accelerator):
    config = Config(out=tmp_path / "run")
    open_run(config, "sphere", accelerator)
    same = replace(config, resume=True, eval_draws=3)
    assert open_run(same, "sphere", accelerator) == tmp_path / "run"
    with pytest.raises(ValueError, match=r"differ: lr was 0.001, is 0.5"):
        open_run(replace(same, lr=0.5), "sphere", accelerator)
    with pytest.raises(ValueError, match=r"differ: domain was 'sphere', is 'qm9'"):
        open_run(same, "qm9", accelerator)


@pytest.mark.parametrize("text", [None, "", "{", "[1]", '{"lr": 1}'])
def test_folders_without_a_readable_run(tmp_path, text):
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"holds no run|is damaged"):
        read_config(tmp_path)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "metrics.json"
    write_json(path, {"a": 1.0, "b": float("nan")})
    with pytest.raises(OSError, match="full"), atomic_path(path) as part:
        _write_half(part)
    assert json.loads(path.read_text()) == {"a": 1.0, "b": None}
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.json"]


def test_a_line_cut_short_by_a_crash_is_left_out(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert read_records(tmp_path) == [{"step": 1}, {"step": 2}]
