"""Wheels and source distributions hold what they should, and say what they are."""

import os
import re
import subprocess
import tarfile
import tomllib
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = sorted(path.parent for path in ROOT.glob("packages/*/pyproject.toml"))
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the distributions of all packages."""
    folder = tmp_path_factory.mktemp("dist")
    command = [os.environ.get("UV", "uv"), "build", "--quiet", "--all-packages", "--out-dir", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True)
    return folder


def sources(package: Path) -> set[str]:
    """Files of a package's modules, the C sources of the engine included."""
    files = (path for path in (package / "src").rglob("*") if path.is_file() and path.suffix != ".pyc")
    return {path.relative_to(package / "src").as_posix() for path in files}


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_distributions_are_complete(dist: Path, package: Path) -> None:
    stem = f"{package.name.replace('-', '_')}-{VERSION}"
    with zipfile.ZipFile(dist / f"{stem}-py3-none-any.whl") as wheel:
        info = f"{stem}.dist-info"
        names = {name for name in wheel.namelist() if not name.endswith("/")}
        modules = {name for name in names if not name.startswith(info)}
        metadata = HeaderParser().parsestr(wheel.read(f"{info}/METADATA").decode())
        assert wheel.read(f"{info}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
    assert modules == sources(package)
    with tarfile.open(dist / f"{stem}.tar.gz") as archive:
        packed = {name.removeprefix(f"{stem}/") for name in archive.getnames()}
    assert packed >= {f"src/{name}" for name in modules} | {"pyproject.toml", "README.md", "LICENSE"}
    assert (metadata["Version"], metadata["License-Expression"]) == (VERSION, "MIT")
    for header in ("Summary", "Author", "Keywords", "Classifier", "Project-URL", "Requires-Python"):
        assert metadata[header]
    assert metadata.get_payload() == (package / "README.md").read_text()


def test_one_version_everywhere() -> None:
    """Packages are released together: each has the root's version, and needs the others of that series."""
    series = re.escape(VERSION.rpartition(".")[0])
    for package in PACKAGES:
        project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
        assert project["version"] == VERSION
        for need in project["dependencies"]:
            assert re.fullmatch(rf"drift-\w+(\[\S+\])?~={series}\.0", need) or not need.startswith("drift-")
    assert f"\nversion: {VERSION}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## [{VERSION}]" in (ROOT / "CHANGELOG.md").read_text()


def test_the_hooks_are_the_static_checks_of_ci() -> None:
    hooks = set(re.findall(r"^ +entry: (.+)$", (ROOT / ".pre-commit-config.yaml").read_text(), re.MULTILINE))
    tools = re.findall(r"^ *uv run (?!pytest|apps/)(.+)$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    assert hooks == {"uv lock --check", *(f"uv run {tool}" for tool in tools)}
    assert len(hooks) == 5
