"""Studies of other settings have other folders."""

import pytest


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
        out.mkdir()
        (out / f"{what}.md").write_text("")

    monkeypatch.setattr(getattr(reproduce, what), f"run_{what}", study)
    reproduce.reproduce(reproduce.Command(what=what, out=tmp_path, **given))
    assert seen == [(given.get("codebook_size", 2048), name.replace("X", what))]


def test_fewer_than_no_codebook_entries_are_refused(tmp_path, app_inside):
    done = app_inside("reproduce", "table1", "--codebook-size", -1, "--out", tmp_path)
    assert done.returncode == 2
    assert "--codebook-size must be at least 0, got -1" in done.stderr
    assert not list(tmp_path.iterdir())
