"""Studies of other settings have other folders."""

import subprocess
import sys
from pathlib import Path

import pytest

APPS = Path(__file__).parents[1] / "apps"


@pytest.fixture
def reproduce(monkeypatch):
    monkeypatch.syspath_prepend(str(APPS))
    return pytest.importorskip("reproduce")


@pytest.mark.parametrize(
    ("given", "name"),
    [({}, "X-quick"), ({"codes": 2048}, "X-quick"), ({"codes": 0}, "X-quick-codes-0")],
    ids=["default", "2048", "0"],
)
@pytest.mark.parametrize("what", ["table1", "figure4"])
def test_another_number_of_codes_has_a_folder_of_its_own(reproduce, what, given, name, tmp_path, monkeypatch):
    seen = []

    def study(budget, *args):
        out = args[-2]
        seen.append((budget.codes, out.name))
        out.mkdir()
        (out / f"{what}.md").write_text("")

    monkeypatch.setattr(getattr(reproduce, what), f"run_{what}", study)
    reproduce.main(reproduce.Config(what=what, out=tmp_path, **given))
    assert seen == [(given.get("codes", 2048), name.replace("X", what))]


def test_fewer_than_no_codes_are_refused(tmp_path):
    command = [sys.executable, str(APPS / "reproduce.py"), "table1", "--codes", "-1", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--codes must be at least 0, got -1" in done.stderr
    assert not list(tmp_path.iterdir())
