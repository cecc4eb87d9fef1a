"""The command `drift` is the applications by another name."""

import sys
from pathlib import Path

import pytest
from drift_core.__main__ import main
from drift_core.runs.installed import installed_domains

APPS = Path(__file__).parents[1] / "apps"
DOMAINS = ("promoter", "qm9", "sphere", "synthetic")


@pytest.mark.parametrize("command", [*(f"train {name}" for name in DOMAINS), "sample", "evaluate", "report"])
def test_command_and_application_print_the_same_help(command, app_inside, monkeypatch, capfd):
    name = command.replace(" ", "_")
    app = app_inside(name, "--help")
    monkeypatch.setattr(sys, "argv", ["drift", *command.split(), "--help"])
    with pytest.raises(SystemExit) as stop:
        main()
    found = capfd.readouterr().out
    assert (app.returncode, stop.value.code) == (0, 0)
    assert found.startswith(f"usage: drift {command} [-h] ")
    assert found.replace(f"drift {command}", str(APPS / f"{name}.py")) == app.stdout


def test_every_domain_package_declares_its_domain():
    found = installed_domains()
    assert tuple(found) == DOMAINS
    assert [make().name for make in found.values()] == list(DOMAINS)


def test_the_command_is_installed():
    assert Path(sys.executable).with_name("drift").is_file()
