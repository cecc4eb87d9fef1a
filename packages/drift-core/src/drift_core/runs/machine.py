"""The machine that a run is on."""

import platform
from pathlib import Path

import torch


def processor() -> str:
    """Name of the GPU, or of the processor if there is none."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    table = Path("/proc/cpuinfo")
    lines = table.read_text().splitlines() if table.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
