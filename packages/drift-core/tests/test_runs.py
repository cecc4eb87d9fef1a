"""Run folders: nothing is lost, nothing half-written."""

import errno
import json
import stat
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from drift_core.files import atomic_path, naming, write_json
from drift_core.runs.config import DomainConfig
from drift_core.runs.folder import Place, open_run, read_config, restore_config
from drift_core.runs.model import load_model, save_model
from drift_core.training.config import Settings
from drift_core.training.parallel import make_accelerator
from drift_core.training.records import read_records
from huggingface_hub import PyTorchModelHubMixin
from torch import nn


@dataclass(frozen=True, kw_only=True)
class Data(Settings):
    data: Path | None = None
    skip: bool = False


@dataclass(frozen=True, kw_only=True)
class Config(DomainConfig):
    data: Data = field(default_factory=Data)


def _write_half(path: Path) -> None:
    path.write_text("half")
    raise OSError("the disk is full")


@pytest.fixture
def accelerator():
    return make_accelerator()


def test_a_run_remembers_its_settings(tmp_path, accelerator):
    config = Config.of(lengthscale="3:0.1", kernel="matern", nu=float("inf"), data=Path("a.csv"))
    assert open_run(config, "sphere", Place(tmp_path / "run"), accelerator) == tmp_path / "run"
    stored = read_config(tmp_path / "run")
    assert stored["domain"] == "sphere"
    assert restore_config(Config, stored) == config


def test_a_second_run_in_the_same_folder_is_refused(tmp_path, accelerator):
    place = Place(tmp_path / "run")
    open_run(Config(), "sphere", place, accelerator)
    before = (tmp_path / "run" / "config.json").read_bytes()
    with pytest.raises(ValueError, match=r"`out` .*run already holds a run; name a new folder"):
        open_run(Config.of(seed=9), "sphere", place, accelerator)
    assert (tmp_path / "run" / "config.json").read_bytes() == before


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (Place(resume=True), "`resume` needs `out`"),
        (Place(Path("run"), allow_changes=True), "`allow_changes` is for continuing a run"),
    ],
)
def test_places_that_contradict_themselves(place, message, accelerator):
    with pytest.raises(ValueError, match=message):
        open_run(Config(), "sphere", place, accelerator)


def test_other_folders_and_files_are_left_alone(tmp_path, accelerator):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="is a file"):
        open_run(Config(), "sphere", Place(tmp_path / "file"), accelerator)
    with pytest.raises(ValueError, match="is not empty"):
        open_run(Config(), "sphere", Place(tmp_path), accelerator)
    assert (tmp_path / "file").read_text() == "mine"


def test_resuming_with_other_settings_says_which(tmp_path, accelerator):
    place = Place(tmp_path / "run")
    open_run(Config(), "sphere", place, accelerator)
    again = place._replace(resume=True)
    assert open_run(Config.of(eval_draws=3), "sphere", again, accelerator) == tmp_path / "run"
    with pytest.raises(ValueError, match=r"differ: lr was 0.001, is 0.5"):
        open_run(Config.of(lr=0.5), "sphere", again, accelerator)
    with pytest.raises(ValueError, match=r"is a run of the domain 'sphere', not of 'qm9'"):
        open_run(Config(), "qm9", again, accelerator)


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


def test_a_damaged_line_within_the_log_is_an_error(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2\n{"step": 3}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2: damaged"):
        read_records(tmp_path)


def test_changes_are_allowed_on_request_and_remembered(tmp_path, accelerator, capfd):
    place = Place(tmp_path / "run")
    open_run(Config(), "sphere", place, accelerator)
    changing = Place(tmp_path / "run", resume=True, allow_changes=True)
    other = Config.of(lr=0.5)
    assert open_run(other, "sphere", changing, accelerator) == tmp_path / "run"
    assert "warning: " in (said := capfd.readouterr().err)
    assert "lr was 0.001, is 0.5" in said
    open_run(other.replace(seed=3), "sphere", changing, accelerator)
    stored = read_config(tmp_path / "run")
    assert stored["changes"] == ["lr was 0.001, is 0.5", "seed was 0, is 3"]
    assert restore_config(Config, stored) == Config.of(lr=0.5, seed=3)
    with pytest.raises(ValueError, match=r"differ: lr was 0.5, is 0.001.*; `allow_changes` goes on"):
        open_run(Config.of(seed=3), "sphere", place._replace(resume=True), accelerator)
    with pytest.raises(ValueError, match=r"is a run of the domain 'sphere', not of 'qm9'$"):
        open_run(other.replace(seed=3), "qm9", changing, accelerator)


def test_settings_that_a_run_does_not_know_yet_are_no_change(tmp_path, accelerator):
    place = Place(tmp_path / "run")
    open_run(Config(), "sphere", place, accelerator)
    stored = read_config(tmp_path / "run")
    del stored["batch"]["num_negatives"]
    write_json(tmp_path / "run" / "config.json", stored)
    assert open_run(Config(), "sphere", place._replace(resume=True), accelerator) == tmp_path / "run"


def test_what_a_killed_process_left_unfinished_is_swept_away(tmp_path, accelerator):
    place = Place(tmp_path)
    (tmp_path / ".part.config.abc.json").write_text("{")
    open_run(Config(), "sphere", place, accelerator)  # an unfinished file alone is no run
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / ".part.step_3.abc.pt").write_text("half")
    (tmp_path / ".part.model.abc" / "new").mkdir(parents=True)
    open_run(Config(), "sphere", place._replace(resume=True), accelerator)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["checkpoints", "config.json"]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("optimizer", {"steps": "many"}, "steps: 'many' is not int"),
        ("optimizer", {"steps": True}, "steps: True is not int"),
        ("optimizer", {"steps": 1.5}, "steps: 1.5 is not int"),
        ("optimizer", {"lr": "fast"}, "lr: 'fast' is not float"),
        ("optimizer", {"lr": None}, "lr: None is not float"),
        ("optimizer", {"max_step": "far"}, "max_step: 'far' is none of float, NoneType"),
        ("kernel", {"kernel": "cauchy"}, "kernel: 'cauchy' is none of laplace, gaussian, matern, spectral"),
        ("kernel", {"kernel": ["laplace"]}, "kernel: .* is none of"),
        ("data", {"data": 3}, "data: 3 is none of Path, NoneType"),
        ("data", {"skip": "yes"}, "skip: 'yes' is not bool"),
        ("kernel", {"lengthscale": 0.2}, "lengthscale: 0.2 is none of str, NoneType"),
        ("optimizer", {"steps": -1}, "`steps` must be at least 1"),
        ("optimizer", 3, "there is no setting 'optimizer'"),
        ("optimizer", {"rate": 3}, "there is no setting 'rate'"),
        ("optimiser", {"lr": 3}, "there is no group of settings 'optimiser'"),
    ],
)
def test_settings_of_another_type_are_refused(name, value, message):
    with pytest.raises(ValueError, match=message):
        restore_config(Config, {"domain": "sphere", name: value})


def test_what_an_application_reports_is_checked_too():
    with pytest.raises(ValueError, match="`eval_draws` must be at least 1, got 0"):
        Config.of(eval_draws=0).check()
    with pytest.raises(ValueError, match="`nu` is for `kernel` matern or spectral; got laplace"):
        Config.of(nu=2.5).check()


def test_settings_are_changed_by_name_whatever_their_group():
    config = Config.of(steps=3, kernel="matern", data=Path("a"), seed=5)
    found = (config.optimizer.steps, config.kernel.kernel, config.data.data, config.run.seed)
    assert found == (3, "matern", Path("a"), 5)
    assert config.replace(steps=4) == Config.of(steps=4, kernel="matern", data=Path("a"), seed=5)
    assert config.flat()["steps"] == 3
    with pytest.raises(ValueError, match="there is no setting stepps"):
        config.replace(stepps=4)


def test_errors_name_the_file_that_was_asked_for(tmp_path):
    path = tmp_path / "metrics.json"
    with pytest.raises(OSError, match=r"No space left on device: '.*metrics\.json'"), naming(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(FileNotFoundError, match=r"other\.txt"), naming(path):
        (tmp_path / "other.txt").read_text()


class Doubler(nn.Module, PyTorchModelHubMixin):
    """A model with one argument."""

    def __init__(self, width: int = 2) -> None:
        super().__init__()
        self.map = nn.Linear(width, width)


def test_a_model_is_replaced_as_a_whole_and_read_back(tmp_path):
    folder, models = tmp_path / "model", [Doubler(3), Doubler(4)]
    for model in models:
        save_model(folder, model)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    read = load_model(Doubler, folder)
    assert torch.equal(read.map.weight, models[1].map.weight)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == {stat.S_IMODE((folder / "config.json").stat().st_mode)}


def test_models_that_are_missing_changed_or_of_another_kind(tmp_path):
    folder = tmp_path / "model"
    with pytest.raises(ValueError, match="has no trained model yet"):
        load_model(Doubler, folder)
    save_model(folder, Doubler(3))
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged: .*SHA256SUMS"):
        load_model(Doubler, folder)
    save_model(folder, Doubler(3))
    (folder / "config.json").write_text('{"width": 5}')
    with pytest.raises(ValueError, match=r"config\.json is damaged"):
        load_model(Doubler, folder)
    (folder / "SHA256SUMS").unlink()
    with pytest.raises(ValueError, match=r"holds no Doubler: .*size mismatch"):
        load_model(Doubler, folder)
