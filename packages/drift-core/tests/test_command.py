"""The command `drift` finds the domains of installed packages, and refuses what it does not know."""

import io
import re
import sys
from pathlib import Path

import pytest
from drift_core import cli
from drift_core.__main__ import dispatch, main
from drift_core.runs.installed import installed_domains

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def wind(tmp_path, monkeypatch):
    """A third party's package, installed: a module on the path and the metadata of its wheel."""
    info = tmp_path / "wind-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: wind\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[drift.domains]\nwind = wind:Wind\n")
    for folder in (tmp_path, EXAMPLES):
        monkeypatch.syspath_prepend(str(folder))


@pytest.fixture
def drift(monkeypatch, capsys):
    """Run the command, as a shell would."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["drift", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    return run


@pytest.mark.usefixtures("wind")
def test_a_third_partys_domain_trains_and_samples(drift, tmp_path):
    assert installed_domains()["wind"]().name == "wind"
    assert "wind" in drift()[1].partition("Installed domains:")[2]
    run = tmp_path / "run"
    small = ("--steps", 3, "--batch-size", 16, "--eval-draws", 1)
    code, out, err = drift("train", "wind", *small, "--out", run)
    assert code == 0
    assert f"run folder: {run}; open {run}/report.html\ntry next:\n  drift train wind --data FILE.txt " in out
    assert "--steps 2000" not in out  # tried: the flag was given
    assert re.search(r"drift=[\d.]+, ess=[\d.]+\]", err)
    assert drift("sample", run, "--n", 7, "--out", tmp_path / "a.txt")[0] == 0
    assert len((tmp_path / "a.txt").read_text().splitlines()) == 7
    code, out, _ = drift("evaluate", run, "--draws", 2)
    assert (code, "w1" in out) == (0, True)


@pytest.mark.usefixtures("wind")
def test_after_the_default_recipe_a_run_names_the_longer_one(tmp_path, monkeypatch, capsys):
    domain = installed_domains()["wind"]()
    recipes = {"recipes": {"quick": {"steps": 3}, "long": {"steps": 30}, "paper": {"steps": 9}}}
    for name, value in {**recipes, "longer": {"quick": "long"}}.items():
        monkeypatch.setattr(type(domain), name, value)
    monkeypatch.setattr(type(domain), "default_recipe", lambda domain, config: "quick")
    monkeypatch.setattr("drift_core.cli.training.train_domain", lambda *_: (tmp_path, {}))
    line = "these were the 3 steps of --recipe quick; better are the 30 of --recipe long\n"
    shown = {
        "": True,
        "--recipe quick": True,
        "--recipe long": False,
        "--recipe paper": False,
        "--steps 4": False,
    }
    for flags, expected in shown.items():
        monkeypatch.setattr(sys, "argv", ["drift train wind", *flags.split()])
        cli.train(domain)
        assert (line in capsys.readouterr().out) == expected, flags


@pytest.mark.usefixtures("wind")
def test_the_page_of_a_run_is_written_from_its_files(drift, tmp_path):
    run = tmp_path / "run"
    assert drift("train", "wind", "--steps", 2, "--batch-size", 16, "--eval-draws", 1, "--out", run)[0] == 0
    page, metrics = (run / "report.html").read_bytes(), run / "metrics.json"
    (run / "report.html").unlink()
    assert drift("report", run) == (0, f"{run}/report.html\n", "")
    assert (run / "report.html").read_bytes() == page
    metrics.write_text(metrics.read_text().replace('"w1"', '"w1 of another"'))
    assert drift("report", run)[0] == 0
    assert b"w1 of another" in (run / "report.html").read_bytes()
    metrics.unlink()
    code, _, err = drift("report", run)
    assert (code, err.count("\n")) == (2, 1)
    assert f"error: {run} has no metrics.json" in err


@pytest.mark.usefixtures("wind")
def test_the_readme_of_a_run_names_its_files_and_commands_that_work(drift, tmp_path, monkeypatch):
    run = tmp_path / "RUN"
    assert drift("train", "wind", "--steps", 2, "--batch-size", 16, "--eval-draws", 1, "--out", run)[0] == 0
    text = (run / "README.md").read_text()
    named = {name.strip("/") for name in re.findall(r"^\| `(.+?)` \|", text, re.MULTILINE)}
    assert named == {path.name for path in run.iterdir()} - {"README.md"}
    monkeypatch.chdir(tmp_path)
    for line in re.search(r"```sh\n(.*?)```", text, re.DOTALL).group(1).splitlines():
        command = line.partition(" #")[0].replace("10000", "5").replace("100", "2").split()
        code, _, err = drift(*command[1:])
        assert (command[0], code) == ("drift", 0), err
    (run / "README.md").write_text("mine")
    assert drift("train", "wind", "--resume", "--out", run)[0] == 0
    assert (run / "README.md").read_text() == "mine"


@pytest.mark.usefixtures("wind")
@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        ("train winds", ["error: there is no domain winds, only ", "; did you mean wind?"]),
        ("train --steps 3", ["error: there is no domain --steps, only "]),
        (
            "sampel",
            ["there is no command sampel, only train, sample, evaluate, report; did you mean sample?"],
        ),
        (
            "train wind --step 3",
            ["error: Unrecognized options: --step, 3 ", "Perhaps you meant: ", "--steps INT"],
        ),
        ("sample nowhere --out a.txt", ["error: nowhere holds no run"]),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])  # tyro frames its errors only in the former
def test_what_is_unknown_is_refused_in_a_line(drift, monkeypatch, arguments, messages, encoding):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding))
    code, _, err = drift(*arguments.split())
    assert (code, err.count("\n")) == (2, 1)
    for message in messages:
        assert message in err


def test_no_domain_at_all():
    with pytest.raises(ValueError, match="no domain is installed; install a package that has one"):
        dispatch([], {})


@pytest.mark.usefixtures("wind")
def test_help_names_commands_and_their_options(drift):
    assert drift("--help")[1] == drift()[1] == drift("train")[1] == drift("train", "-h")[1]
    assert "usage: drift train wind" in drift("train", "wind", "--help")[1]
    assert "  drift train wind --steps 2000      longer\n" in drift("train", "wind", "--help")[1]
    assert "usage: drift evaluate" in drift("evaluate", "--help")[1]
