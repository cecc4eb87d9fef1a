"""Checkpoints: everything that a run needs to continue as if it had not stopped."""

import hashlib
import io
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from textwrap import shorten
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import nn

from drift_core.files import atomic_path
from drift_core.training.records import RECORDS

CHECKPOINTS = "checkpoints"
"""Folder of the checkpoints in that of a run."""

_BEST = "best.pt"
_DIGEST = hashlib.sha256().digest_size


@runtime_checkable
class Stateful(Protocol):
    """Anything with a state: modules, optimisers."""

    def state_dict(self) -> Mapping[str, Any]:
        """Return the state."""

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any:
        """Restore a state."""


class TrainState(NamedTuple):
    """Progress of a run. Latents, data order and dropout are determined by the seed and the step."""

    step: int = 0
    """Steps done."""
    best: float = math.inf
    """Lowest validation score so far."""
    records: str = ""
    """Text of metrics.jsonl so far, so that the log is as exact as the weights."""


def save_checkpoint(
    out: Path, step: int, best: float, parts: Mapping[str, Stateful], *, keep: int = 2
) -> Path:
    """Write checkpoints/step_<step>.pt atomically, and drop all but the newest `keep` up to it."""
    state = TrainState(step, best, (out / RECORDS).read_text() if (out / RECORDS).exists() else "")
    path = _path(out, step)
    _write(path, {**state._asdict(), **{name: part.state_dict() for name, part in parts.items()}})
    drop_old(out, step, keep)
    # Later checkpoints were damaged, and training restarted before them.
    for other in _checkpoints(out):
        if other.name > path.name:
            other.unlink()
    return path


def drop_old(out: Path, step: int, keep: int) -> None:
    """Drop all but the newest `keep` checkpoints up to a step."""
    for other in [path for path in _checkpoints(out) if path.name <= _path(out, step).name][:-keep]:
        other.unlink()


def load_checkpoint(out: Path, parts: Mapping[str, Stateful], warn: Callable[[str], None]) -> TrainState:
    """Load the newest intact checkpoint into `parts`; returns the initial state if there is none at all.

    No code in a file is executed. Calls `warn` for each damaged one.

    Raises:
        ValueError: all checkpoints are damaged, or the newest intact one is of other parts.
    """
    for path in reversed(_checkpoints(out)):
        try:
            state = _read(path)
        except (OSError, ValueError) as error:
            warn(f"{path} is damaged, going back to the one before: {error}")
            continue
        try:
            for name, part in parts.items():
                part.load_state_dict(state[name])
            return TrainState(*(state[name] for name in TrainState._fields))
        except (LookupError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path} is of another network or optimiser: {shorten(str(error), 300)}"
            ) from error
    if _checkpoints(out):
        raise ValueError(f"{out / CHECKPOINTS}: all checkpoints are damaged; start a new run")
    return TrainState()


def keep_best(out: Path, step: int, best: float, score: float, module: nn.Module) -> float:
    """Write the module's weights to checkpoints/best.pt if its score is below the best; return the best."""
    if not score < best:
        return best
    _write(out / CHECKPOINTS / _BEST, {"step": step, "score": score, "module": module.state_dict()})
    return score


def load_best(out: Path, module: nn.Module) -> float:
    """Load the weights with the lowest validation score of a run, and return that score.

    Raises:
        ValueError: the run kept none, the file is damaged, or it is of another module.
    """
    path = out / CHECKPOINTS / _BEST
    if not path.is_file():
        raise ValueError(f"{out} has no {CHECKPOINTS}/{_BEST}; it was trained without validation")
    try:
        state = _read(path)
        module.load_state_dict(state["module"])
        return float(state["score"])
    except (LookupError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged or of another network: {shorten(str(error), 300)}") from error


def newest_checkpoint(out: Path) -> Path | None:
    """Path of the newest checkpoint, if any."""
    return max(_checkpoints(out), default=None)


def checkpoint_bytes(module: nn.Module) -> int:
    """Approximate size of a checkpoint: weights, their average, and two moments of the gradient."""
    weights = sum(value.nbytes for value in module.state_dict().values())
    return 2 * weights + 2 * sum(p.nbytes for p in module.parameters() if p.requires_grad)


def _path(out: Path, step: int) -> Path:
    return out / CHECKPOINTS / f"step_{step:09d}.pt"


def _checkpoints(out: Path) -> list[Path]:
    return sorted((out / CHECKPOINTS).glob("step_*.pt"))


def _write(path: Path, state: Mapping[str, Any]) -> None:
    """Write a state, followed by its sha256 (which torch.load ignores)."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    content = buffer.getbuffer()
    with atomic_path(path) as part, part.open("wb") as file:
        file.write(content)
        file.write(hashlib.sha256(content).digest())


def _read(path: Path) -> dict[str, Any]:
    """Read a state of tensors and plain values. Raises ValueError if the file is damaged."""
    content = path.read_bytes()
    body, digest = memoryview(content)[:-_DIGEST], content[-_DIGEST:]
    if hashlib.sha256(body).digest() != digest:
        raise ValueError("its sha256 does not match")
    try:
        state = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling may raise any exception
        raise ValueError(
            f"it holds more than tensors and plain values: {shorten(str(error), 100)}"
        ) from error
    if not isinstance(state, dict):
        raise ValueError("it is not a checkpoint")
    return state
