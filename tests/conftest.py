"""Applications run as a user runs them, or inside this process where only their messages matter."""

import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

APPS = Path(__file__).parents[1] / "apps"


@pytest.fixture
def app_inside(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., object]:
    """Run the command line of an application in this process: fast, for what is refused early."""
    monkeypatch.syspath_prepend(str(APPS))

    def run(name: str, *args: object) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, args)])
        module = importlib.import_module(name)
        cli = importlib.import_module("_cli")
        code: object = 0
        try:
            cli.run(module.main, module.parse)
        except SystemExit as stop:
            code = stop.code
        out, err = capfd.readouterr()
        return subprocess.CompletedProcess(sys.argv, int(str(code)), out, err)

    return run
