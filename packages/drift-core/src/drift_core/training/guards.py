"""Checks before and during training, and warnings."""

import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from accelerate import Accelerator
from torch import Tensor, nn

from drift_core.manifold import Manifold
from drift_core.training.checkpoint import checkpoint_bytes, newest_checkpoint
from drift_core.training.records import RECORDS

_COINCIDE = 1e-3
"""Spread of the samples, relative to the data's, below which they have collapsed."""
_SATURATED = 0.99
"""Fraction of capped steps above which the cap, not the drift, determines how far samples move."""


def check_engine(accelerator: Accelerator) -> None:
    """Refuse settings of Accelerate that the training loop does not support.

    Raises:
        ValueError: gradient accumulation, or float16 with its scaled losses.
    """
    if accelerator.gradient_accumulation_steps != 1:
        raise ValueError(
            "gradient accumulation would split the batch that the field is a statistic of; "
            "leave it at 1 in Accelerate's settings, and use `micro_batch_size`"
        )
    if accelerator.scaler is not None:
        raise ValueError("mixed precision fp16 needs a loss scale that is not checkpointed; use bf16")


def check_unused(out: Path) -> None:
    """Refuse to start a run in the folder of another, whose checkpoints and log would be overwritten.

    Raises:
        ValueError: the folder holds checkpoints or a log.
    """
    if newest_checkpoint(out) is not None or (out / RECORDS).exists():
        raise ValueError(f"{out} already holds a run; name another folder, or continue it with `resume`")


def check_space(out: Path, module: nn.Module, keep: int) -> None:
    """Refuse, before training, a folder to which checkpoints cannot be written.

    Raises:
        OSError: the folder cannot be written, or its disk is too small for the checkpoints of the module.
    """
    folder = out / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass
    # One more than is kept, as the next is written before the oldest is dropped.
    copies = keep + 1 - len(list(folder.glob("step_*.pt")))
    need, free = copies * checkpoint_bytes(module), shutil.disk_usage(folder).free
    if need > free:
        raise OSError(
            f"{folder}: checkpoints need {need / 1e6:,.1f} MB, {free / 1e6:,.1f} MB are free; "
            "free some, keep fewer (`keep`), or choose another `out`"
        )


def check_finite(norm: Tensor, values: Mapping[str, Tensor], step: int, out: Path) -> None:
    """Raise FloatingPointError, naming step, culprit and last checkpoint, before a non-finite update.

    Args:
        norm: norm of the gradient over all processes, which therefore all stop at the same step.
        values: named values from which the gradient was computed, the loss last.
        step: the current step.
        out: the run folder.
    """
    if bool((list(values.values())[-1].detach() + norm).isfinite()):
        return
    culprit = next((name for name, value in values.items() if not bool(value.isfinite().all())), "a gradient")
    last = newest_checkpoint(out)
    raise FloatingPointError(
        f"step {step}: {culprit} is not finite; try a smaller `lr` or `step_size`; "
        + (f"the last checkpoint is {last}" if last else "there is no checkpoint yet")
    )


def warnings_of(manifold: Manifold, x: Tensor, data: Tensor, clipped: float) -> set[str]:
    """Warnings about a step: samples that coincide, or steps that are all capped.

    Args:
        manifold: the geometry of the samples.
        x: the pooled samples.
        data: the data of the step.
        clipped: fraction of the steps that were capped.
    """
    found = set()
    comparable = data.is_floating_point() and data.shape[1:] == x.shape[1:]
    if _spread(manifold, x) < _COINCIDE * (_spread(manifold, data) if comparable else 1.0):
        found.add("all samples coincide: the generator has collapsed, and points on one spot do not repel")
    if clipped > _SATURATED:
        found.add("all steps are capped: `max_step`, not the drift, sets how far; lower `step_size`")
    return found


def _spread(manifold: Manifold, x: Tensor) -> float:
    """Mean distance between neighbouring rows, which are in no particular order."""
    return float(manifold.dist(x, x.roll(1, 0)).mean())


@dataclass
class Watch:
    """Issues each warning once, when it is found at two logged steps in a row."""

    warn: Callable[[str], None]
    seen: set[str] = field(default_factory=set)
    told: set[str] = field(default_factory=set)

    def __call__(self, step: int, found: set[str]) -> None:
        """Record the warnings found at a step."""
        for warning in sorted(found & self.seen - self.told):
            self.warn(f"step {step}: {warning}")
            self.told.add(warning)
        self.seen = found
