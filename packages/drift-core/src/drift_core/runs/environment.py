"""The environment of a run: what it ran on, by which command."""

import os
import platform
import shlex
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from drift_core.files import write_json
from drift_core.runs.folder import read_settings

ENVIRONMENT = "environment.json"


def processor() -> str:
    """Name of the processor."""
    table = Path("/proc/cpuinfo")
    lines = table.read_text().splitlines() if table.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def write_environment(run: Path, accelerator: Accelerator) -> None:
    """Write the environment.json of a run: command, versions, processor, device, processes and threads."""
    name = sys.argv[0]  # a script, or several words: drift train sphere
    program = shlex.join(("uv", "run", name)) if name.endswith(".py") else name
    on_gpu = accelerator.device.type == "cuda"
    found = {
        "program": program,
        "command": f"{program} {shlex.join(sys.argv[1:])}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "drift-core": version("drift-core"),
        "system": platform.platform(),
        "processor": processor(),
        "cores": os.cpu_count() or 1,
        "device": torch.cuda.get_device_name() if on_gpu else accelerator.device.type,
        "processes": accelerator.num_processes,
        "threads": torch.get_num_threads(),
        "precision": accelerator.mixed_precision,
    }
    write_json(run / ENVIRONMENT, found)


def read_environment(run: Path) -> dict[str, Any]:
    """What `write_environment` wrote; nothing for a run of an earlier version.

    Raises:
        ValueError: the file is damaged.
    """
    path = run / ENVIRONMENT
    return read_settings(path) if path.exists() else {}
