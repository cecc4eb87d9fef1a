"""The workspace keeps its shape: imports point one way, packages are complete, nothing strays."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = sorted(path.parent for path in ROOT.glob("packages/*/pyproject.toml"))
MODULES = [package.name.replace("-", "_") for package in PACKAGES]
TOP_LEVEL = {
    "pyproject.toml",
    "uv.lock",
    "README.md",
    "LICENSE",
    "CHANGELOG.md",
    "CITATION.cff",
    "packages",
    "apps",
    "tests",
}
ALLOWED_IMPORTS = {
    *((module, "drift_core") for module in MODULES if module != "drift_core"),
    ("drift_promoter", "drift_simplex"),
    ("drift_qm9", "drift_simplex"),
}
REGISTRY = re.compile(r"pypi[.]org/simple|files[.]pythonhosted|index[-_]url|tool[.]uv[.]index", re.IGNORECASE)


def tracked() -> list[Path]:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True)
    return [path for name in listing.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def lint_imports(sources: list[Path]) -> subprocess.CompletedProcess[str]:
    """Check the import rule of pyproject.toml on the packages found under `sources`."""
    lint = Path(sys.executable).with_name("lint-imports")
    command = [lint, "--no-cache", "--no-logo", "--config", ROOT / "pyproject.toml"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, sources))}
    return subprocess.run(command, cwd=sources[0], env=environment, capture_output=True, text=True)


def test_import_rule_holds() -> None:
    result = lint_imports([package / "src" for package in PACKAGES])
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("importer", MODULES)
def test_import_rule_catches(importer: str, tmp_path: Path) -> None:
    for package, module in zip(PACKAGES, MODULES, strict=True):
        shutil.copytree(package / "src" / module, tmp_path / module, ignore=shutil.ignore_patterns("*.pyc"))
    forbidden = sorted({(importer, module) for module in MODULES if module != importer} - ALLOWED_IMPORTS)
    with (tmp_path / importer / "__init__.py").open("a") as source:
        source.write("".join(f"\nimport {imported}" for _, imported in forbidden) + "\n")
    result = lint_imports([tmp_path])
    assert result.returncode == 1
    for _, imported in forbidden:
        assert f"{importer} -> {imported}" in result.stdout


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_package_is_complete(package: Path) -> None:
    module = package.name.replace("-", "_")
    assert (package / "README.md").stat().st_size > 0
    assert (package / "src" / module / "__init__.py").is_file()
    assert (package / "src" / module / "py.typed").is_file()
    assert list((package / "tests").glob("**/test_*.py"))


def test_only_the_lock_names_a_package_registry() -> None:
    text = {path: path.read_text(errors="ignore") for path in tracked() if path != ROOT / "uv.lock"}
    assert [path for path, content in text.items() if REGISTRY.search(content)] == []


def test_apps_run_in_the_workspace_environment() -> None:
    """Inline script metadata would isolate an app from the workspace packages."""
    apps = list((ROOT / "apps").glob("*.py"))
    assert [app for app in apps if re.search(r"^# /// ", app.read_text(), re.MULTILINE)] == []


def test_top_level_holds_only_what_belongs_there() -> None:
    names = {path.relative_to(ROOT).parts[0] for path in tracked()}
    assert {name for name in names if not name.startswith(".")} <= TOP_LEVEL
