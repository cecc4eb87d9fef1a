"""Applications run as a user runs them, or inside this process where only their messages matter."""

import importlib
import inspect
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from types import ModuleType

import pytest
import torch
from drift_core.runs.installed import installed_domains

# The tests share the cores: threads of many processes wait for one another longer than they work.
os.environ.setdefault("OMP_NUM_THREADS", "1")

APPS = Path(__file__).parents[1] / "apps"

TRIED: Counter[str] = Counter()
SURVIVED: Counter[str] = Counter()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests of the whole take longest: they start first, so that the cores end at about the same time."""
    items.sort(key=lambda item: not item.path.is_relative_to(APPS.parent / "tests"))


@pytest.fixture(scope="session")
def make_cache(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Maker of caches that are not the user's, but hold the compiled library: that takes seconds."""
    from drift_core.engine.build import compiled

    found = compiled()
    compiled = None if found is None else Path(found._name).parent

    def make() -> Path:
        folder = tmp_path_factory.mktemp("cache")
        if compiled is not None and compiled.is_dir():
            shutil.copytree(compiled, folder / "drift-core", ignore=shutil.ignore_patterns(".part.*"))
        return folder

    return make


@pytest.fixture(autouse=True, scope="session")
def own_cache(make_cache: Callable[[], Path]) -> Iterator[None]:
    """The tests share one cache, which is not the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(make_cache()))
        yield


@pytest.fixture(autouse=True, scope="session")
def sources_once() -> Iterator[None]:
    """The command line reads the source of all settings at every start, for their docstrings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inspect, "getsource", lru_cache(inspect.getsource))
        yield


@pytest.fixture
def import_app(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Import a module of apps/ into this process."""
    monkeypatch.syspath_prepend(str(APPS))
    return importlib.import_module


@pytest.fixture
def coarse_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few pixels and no layout, which take half of a short run; those of the packages' tests are whole."""
    from matplotlib.figure import Figure

    def coarse(figure: Figure, path: Path, **settings: object) -> None:
        figure.set_layout_engine("none")
        savefig(figure, path, **{**settings, "dpi": 20})

    savefig = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", coarse)


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs inside this process draw nothing: where other tests see the figures of such runs."""
    monkeypatch.setattr("drift_core.runs.main.training_figure", lambda *_: None)
    for make in installed_domains().values():
        monkeypatch.setattr(type(make()), "figures", lambda *_: None)


@pytest.fixture
def app_inside(
    import_app: Callable[[str], ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    coarse_figures: None,
    capfd: pytest.CaptureFixture[str],
) -> Callable[..., object]:
    """Run the command line of an application in this process: fast, for what is refused early."""

    def run(name: str, *args: object) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, args)])
        code: object = 0
        try:
            runpy.run_path(str(APPS / f"{name}.py"), run_name="__main__")
        except SystemExit as stop:
            code = stop.code
        out, err = capfd.readouterr()
        return subprocess.CompletedProcess(sys.argv, int(str(code)), out, err)

    return run


@pytest.fixture
def fault() -> Callable[[str], object]:
    """Context of one fault of a kind, which counts as survived if nothing in it fails."""

    @contextmanager
    def count(kind: str) -> Iterator[None]:
        TRIED[kind] += 1
        yield
        SURVIVED[kind] += 1

    return count


@pytest.fixture
def tried() -> Counter[str]:
    """How many faults of each kind were tried so far."""
    return TRIED


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Report the faults of a worker to the process that prints the summary."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["faults"] = (dict(TRIED), dict(SURVIVED))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object) -> None:
    """Add up the faults of a worker that ends."""
    tried, survived = getattr(node, "workeroutput", {}).get("faults", ({}, {}))
    TRIED.update(tried)
    SURVIVED.update(survived)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many faults were tried, and how many did no harm."""
    if TRIED:
        kinds = ", ".join(f"{kind} {SURVIVED[kind]}/{tried}" for kind, tried in sorted(TRIED.items()))
        total = f"{SURVIVED.total()} of {TRIED.total()}"
        terminalreporter.write_line(f"faults survived: {total} ({kinds})")


@pytest.fixture
def run_card() -> Callable[..., torch.Tensor]:
    """Runs the Python of a run's model card as a reader would, and returns its samples."""

    def run(folder: Path, **given: torch.Tensor) -> torch.Tensor:
        text = (folder / "model" / "README.md").read_text()
        assert "More Information" not in text
        metrics = json.loads((folder / "metrics.json").read_text())
        assert all(f"| {name} |" in text for name in metrics)
        (code,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
        names = dict(given)
        exec(code.replace("FOLDER", str(folder / "model")), names)
        return names["samples"]

    return run
