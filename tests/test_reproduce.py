"""Studies of other settings have other folders."""

import pickle

import pytest
import torch
from drift_core.original import OriginalField
from drift_core.runs.study import Choice, StudyReport
from drift_sphere.data import Points


@pytest.fixture
def reproduce(import_app):
    return import_app("reproduce")


@pytest.mark.parametrize(
    ("given", "name"),
    [({}, "X-quick"), ({"codebook_size": 2048}, "X-quick"), ({"codebook_size": 0}, "X-quick-codebook-0")],
    ids=["default", "2048", "0"],
)
@pytest.mark.parametrize("what", ["table1", "figure4"])
def test_another_size_of_the_codebook_has_a_folder_of_its_own(
    reproduce, what, given, name, tmp_path, monkeypatch
):
    seen = []

    def study(budget, *args):
        out = args[-2]
        seen.append((budget.codebook_size, out.name))
        return StudyReport(what, [], [])

    monkeypatch.setattr(getattr(reproduce, what), f"run_{what}", study)
    reproduce.reproduce(reproduce.Command(what=what, out=tmp_path, **given))
    assert seen == [(given.get("codebook_size", 2048), name.replace("X", what))]


def test_fewer_than_no_codebook_entries_are_refused(tmp_path, app_inside):
    done = app_inside("reproduce", "table1", "--codebook-size", -1, "--out", tmp_path)
    assert done.returncode == 2
    assert "--codebook-size must be at least 0, got -1" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_codebook_is_not_for_tables_of_real_data(tmp_path, app_inside):
    done = app_inside("reproduce", "table2", "--codebook-size", 0, "--out", tmp_path)
    assert done.returncode == 2
    assert "--codebook-size is for table1 and figure4, not for table2" in done.stderr


@pytest.mark.parametrize("what", ["table2", "table3", "table4"])
def test_missing_data_are_one_line(what, tmp_path, app_inside):
    (tmp_path / "empty").mkdir()
    done = app_inside("reproduce", what, "--data-dir", tmp_path / "empty", "--out", tmp_path / "out")
    assert done.returncode == 2
    (line,) = [text for text in done.stderr.splitlines() if text.startswith("error: ")]
    assert str(tmp_path / "empty") in line
    assert not (tmp_path / "out").exists()


def test_all_skips_what_has_no_data_and_says_why(reproduce, tmp_path, monkeypatch, capsys):
    (tmp_path / "empty").mkdir()
    for module, name in ((reproduce.table1, "table1"), (reproduce.figure4, "figure4")):
        report = StudyReport(f"The {name}", ["About."], [])
        monkeypatch.setattr(module, f"run_{name}", lambda *_, report=report: report)
    command = reproduce.Command(what="all", out=tmp_path / "out", data_dir=tmp_path / "empty")
    reproduce.reproduce(command)
    printed, page = capsys.readouterr().out, (tmp_path / "out" / "study.html").read_text()
    for what in ("table2", "table3", "table4"):
        assert f"skipped {what}: " in printed
        assert what in page
    assert "The table1" in page
    assert "The figure4" in page


@pytest.mark.parametrize("budget", ["quick", "full"])
def test_every_declared_cell_has_valid_settings(reproduce, budget, tmp_path):
    for what, make_table in reproduce.TABLES.items():
        table = make_table(budget, tmp_path)
        assert table.seeds >= 3
        for cell in table.cells.values():
            cell.config.check()
            for trial in cell.tuning_trials().values():
                trial.config.check()
            trial = pickle.loads(pickle.dumps(cell.seed_trial(Choice(), 2)))  # as processes receive it
            assert trial.config == cell.config.replace(seed=2)
        folders = [cell.folder for cell in table.cells.values()]
        assert len(set(folders)) == len(folders), what
        shown = {shown.name for shown in table.metrics}
        assert set(table.published) <= shown


@pytest.mark.parametrize("budget", ["quick", "full"])
@pytest.mark.parametrize(("what", "rows"), [("table2", 7), ("table3", 4), ("table4", 2)])
def test_lengthscales_of_the_rows_of_the_paper_are_chosen_on_validation_data(reproduce, what, rows, budget):
    """By runs that are at most as long, of which each has another lengthscale."""
    cells = reproduce.TABLES[what](budget, None).cells
    chosen = {row for (row, _), cell in cells.items() if cell.candidates}
    assert len(chosen) == rows
    assert "our default" not in chosen
    for cell in cells.values():
        trials = [trial.config for trial in cell.tuning_trials().values()]
        assert len({config.kernel.lengthscale for config in trials}) == len(trials) != 1
        assert all(config.optimizer.steps <= cell.config.optimizer.steps for config in trials)


def test_table_2_has_the_methods_of_the_paper(reproduce):
    table = reproduce.TABLES["table2"]("quick", None)
    settings = {
        (c.config.network.geometry, c.config.kernel.kernel, c.config.kernel.direction)
        for (row, _), c in table.cells.items()
        if (row, "volcano") in table.published["mmd"]
    }
    assert settings == {
        ("euclidean", "laplace", "displacement"), ("euclidean", "laplace", "gradient"),
        ("euclidean", "gaussian", "gradient"), ("spherical", "laplace", "displacement"),
        ("spherical", "laplace", "gradient"), ("spherical", "gaussian", "gradient"),
        ("spherical", "spectral", "gradient"),
    }  # fmt: skip
    original = table.cells["Euclidean, field of the original code", "volcano"]
    points = torch.eye(3)
    field = original.domain.field(original.config, Points(points, points, points))
    assert isinstance(field, OriginalField)
    assert original.config.network.geometry == "euclidean"
