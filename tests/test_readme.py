"""The Python examples of the READMEs run as they stand."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    "readme", ["README.md", "packages/drift-core/README.md", "packages/drift-sphere/README.md"]
)
def test_examples_run(readme, tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / readme).read_text(), flags=re.DOTALL)
    assert blocks
    (tmp_path / "example.py").write_text("\n".join(blocks))
    result = subprocess.run(
        [sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stderr


def test_links_lead_somewhere():
    for readme in [ROOT / "README.md", *ROOT.glob("packages/*/README.md")]:
        for target in re.findall(r"\]\(([^)#]+)", readme.read_text()):
            assert target.startswith("http") or (readme.parent / target).exists(), f"{readme}: {target}"
