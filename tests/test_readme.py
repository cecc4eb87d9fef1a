"""The Python examples of the READMEs and guides run as they stand."""

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


GUIDES = sorted(ROOT.glob("packages/*/docs/*.md"))
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("packages/*/README.md")), *GUIDES, *ROOT.glob(".github/*.md")]
EXAMPLES = [path for path in PAGES if "```python" in path.read_text()]


@pytest.mark.parametrize("readme", EXAMPLES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_examples_run(readme, tmp_path, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", readme.read_text(), flags=re.DOTALL)
    (tmp_path / "example.py").write_text("\n".join(blocks))
    monkeypatch.chdir(tmp_path)
    runpy.run_path("example.py", run_name="__main__")


def test_links_lead_somewhere():
    for readme in PAGES:
        for target in re.findall(r"\]\(([^)#]+)", readme.read_text()):
            assert target.startswith("http") or (readme.parent / target).exists(), f"{readme}: {target}"


def test_tables_of_studies_are_as_the_study_wrote_them():
    found = 0
    for readme in PAGES:
        for name, table in re.findall(
            r"<!-- from (\S+) -->\n(.*?)<!-- end -->", readme.read_text(), re.DOTALL
        ):
            assert table.strip() in (readme.parent / name).read_text(), f"{readme}: not a table of {name}"
            found += 1
    assert found
