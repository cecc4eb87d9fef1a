"""Checkpoints: everything that a run needs to continue as if it had not stopped."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from drift_core.runs import RECORDS, atomic_path, read_records

_KEEP = 2


@runtime_checkable
class Stateful(Protocol):
    """Anything with a state: modules, optimisers."""

    def state_dict(self) -> Mapping[str, Any]:
        """Return the state."""

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any:
        """Take up a state."""


def save_checkpoint(out: Path, step: int, parts: Mapping[str, Stateful]) -> Path:
    """Write checkpoints/step_<step>.pt atomically, and drop all but the newest two."""
    folder = out / "checkpoints"
    path = folder / f"step_{step:09d}.pt"
    with atomic_path(path) as part:
        torch.save({"step": step, **{name: item.state_dict() for name, item in parts.items()}}, part)
    for old in _checkpoints(out)[:-_KEEP]:
        old.unlink()
    return path


def load_checkpoint(out: Path, parts: Mapping[str, Stateful], device: torch.device) -> int:
    """Load the newest checkpoint into `parts`, and return its step, 0 if there is none.

    Nothing in the file is executed.
    """
    paths = _checkpoints(out)
    if not paths:
        return 0
    state = torch.load(paths[-1], map_location=device, weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return int(state["step"])


def trim_records(out: Path, step: int) -> None:
    """Drop the logged steps after `step`, which a resumed run will log again."""
    records = [record for record in read_records(out) if record["step"] <= step]
    with atomic_path(out / RECORDS) as part:
        part.write_text("".join(json.dumps(record) + "\n" for record in records))


def _checkpoints(out: Path) -> list[Path]:
    return sorted((out / "checkpoints").glob("step_*.pt"))
