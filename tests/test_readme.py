"""The Python examples of the READMEs run as they stand."""

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


READMES = [ROOT / "README.md", *sorted(ROOT.glob("packages/*/README.md"))]
EXAMPLES = [path for path in READMES if "```python" in path.read_text()]


@pytest.mark.parametrize("readme", EXAMPLES, ids=lambda path: path.parent.name)
def test_examples_run(readme, tmp_path, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", readme.read_text(), flags=re.DOTALL)
    (tmp_path / "example.py").write_text("\n".join(blocks))
    monkeypatch.chdir(tmp_path)
    runpy.run_path("example.py", run_name="__main__")


def test_links_lead_somewhere():
    for readme in READMES:
        for target in re.findall(r"\]\(([^)#]+)", readme.read_text()):
            assert target.startswith("http") or (readme.parent / target).exists(), f"{readme}: {target}"
