"""Settings of training and of a run, as dataclasses from which command lines are derived."""

import math
import types
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin


@dataclass(kw_only=True)
class TrainConfig:
    """What determines training, whatever the domain."""

    steps: int = 4000
    """Optimiser steps."""
    batch_size: int = 1024
    """Samples per step, over all processes."""
    num_positives: int = 0
    """Data points that attract at each step; 0 stands for the batch size."""
    num_negatives: int = 0
    """Further samples per step, over all processes, which repel and are not trained: a forward pass each."""
    micro_batch_size: int = 0
    """Rows that go through the network at once, for less memory at the cost of one more forward pass; the
    field is still that of the whole batch. 0: all rows of a process."""
    lr: float = 1e-3
    """Learning rate after the warm-up."""
    warmup: int = 100
    """Steps of linear warm-up of the learning rate."""
    decay_fraction: float = 0.0
    """Fraction of the steps, at the end, over which the learning rate falls to zero; 0: never."""
    decay_power: float = 1.0
    """How it falls: as this power of the steps left; 1 is linearly, 3 leaves many steps for small changes."""
    optimizer: Literal["adamw", "adam"] = "adamw"
    """AdamW, whose weight decay is decoupled from the gradient, or Adam, where it is an L2 penalty."""
    beta1: float = 0.9
    """Decay per step of the optimiser's mean of the gradient."""
    beta2: float = 0.999
    """Decay per step of the optimiser's mean of the squared gradient."""
    weight_decay: float | None = None
    """Weight decay; none: 0.01 with adamw, and no decay with adam."""
    clip_norm: float = 1.0
    """Largest norm of the gradient of the weights."""
    ema_decay: float = 0.0
    """Decay per step of the moving average of the weights, which is what is evaluated and saved; 0 stands for
    1 - 9 / steps, an average over a ninth of the training."""
    step_size: float = 0.05
    """How far samples follow the drift at each step."""
    max_step: float | None = None
    """Longest step of a sample; none: just below the injectivity radius."""
    seed: int = 0
    """Seed of the initial weights, the noise and the data order."""
    log_every: int = 50
    """Steps between two lines of metrics.jsonl."""
    save_every: int = 1000
    """Steps between two checkpoints."""
    keep: int = 2
    """Newest checkpoints that are kept."""

    def __post_init__(self) -> None:
        if self.weight_decay is None:
            self.weight_decay = 0.01 if self.optimizer == "adamw" else 0.0
        at_least = {
            "steps": 1,
            "batch_size": 2,
            "num_positives": 0,
            "num_negatives": 0,
            "micro_batch_size": 0,
            "warmup": 0,
            "seed": 0,
            "log_every": 1,
            "save_every": 1,
            "keep": 1,
        }
        for name, least in at_least.items():
            check_range(_flag(name), getattr(self, name), least)
        for name in ("lr", "clip_norm", "step_size", "decay_power"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{_flag(name)} must be positive, got {getattr(self, name)}")
        for name in ("lr", "step_size", "weight_decay", "decay_power"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{_flag(name)} must be finite and not negative, got {getattr(self, name)}")
        for name in ("ema_decay", "decay_fraction", "beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{_flag(name)} must lie in [0, 1), got {getattr(self, name)}")
        self.ema_decay = self.ema_decay or max(0.0, 1 - 9 / self.steps)


@dataclass(kw_only=True)
class RunConfig(TrainConfig):
    """What every application adds to training: the kernel, where the run lives, and how it is reported."""

    out: Path | None = None
    """Folder of the run; none: runs/<domain>/<time>."""
    data_dir: Path | None = None
    """Folder of the benchmark data; none: $DRIFT_DATA_DIR, else the user's cache."""
    resume: bool = False
    """Continue the run in --out from its newest checkpoint."""
    allow_changes: bool = False
    """With --resume: continue with other settings than the run had, which are then listed in config.json."""
    kernel: Literal["laplace", "gaussian", "matern", "spectral"] = "laplace"
    """Kernel; matern and spectral (Matern on the sphere, by its eigenfunctions) use --nu."""
    nu: float = 1.5
    """Smoothness of the matern and spectral kernels; inf is the Gaussian and the heat kernel."""
    lengthscale: str = "0.2"
    """Lengthscale of the kernel in units of distance: a number, several (0.2,0.6), annealed (3:0.2), auto."""
    direction: Literal["gradient", "displacement"] = "gradient"
    """Drift along the kernel gradient, or along the mean displacement."""
    eval_draws: int = 20
    """Generated draws over which metrics are averaged."""
    tracker: Literal["none", "tensorboard", "wandb"] = "none"
    """Where to send the log, besides metrics.jsonl."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("--eval-draws", self.eval_draws, 1)
        if self.resume and self.out is None:
            raise ValueError("--resume needs --out, the folder of the run to continue")
        if self.allow_changes and not self.resume:
            raise ValueError("--allow-changes is for continuing a run; it needs --resume")


def check_range(flag: str, value: int, least: int, most: int = 2**31 - 1) -> None:
    """Raise ValueError, naming the flag, for a number outside least..most."""
    if value < least:
        raise ValueError(f"{flag} must be at least {least}, got {value}")
    if value > most:
        raise ValueError(f"{flag} must be at most {most}, got {value}")


def setting_from_json(value: Any, kind: Any) -> Any:
    """Setting of the annotated type `kind` from what JSON holds of it: paths and infinities are text there.

    Raises:
        ValueError: the value is not of that type.
    """
    if get_origin(kind) in (Union, types.UnionType):
        return _first_that_fits(value, get_args(kind))
    if get_origin(kind) is Literal and value in get_args(kind):
        return value
    if kind is type(None) and value is None:
        return None
    if kind is Path and isinstance(value, str):
        return Path(value)
    if kind is float and value in ("inf", "-inf"):
        return float(value)
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if kind in (int, bool, str) and type(value) is kind:
        return value
    raise ValueError(f"{value!r:.80} is not {getattr(kind, '__name__', kind)}")


def _first_that_fits(value: Any, kinds: Sequence[Any]) -> Any:
    for kind in kinds:
        try:
            return setting_from_json(value, kind)
        except ValueError:
            continue
    raise ValueError(f"{value!r:.80} is none of {', '.join(getattr(k, '__name__', str(k)) for k in kinds)}")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
