"""Settings of training and of a run, as dataclasses from which command lines are derived."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(kw_only=True)
class TrainConfig:
    """What determines training, whatever the domain."""

    steps: int = 4000
    """Optimiser steps."""
    batch_size: int = 1024
    """Samples per step, over all processes."""
    data_batch_size: int = 0
    """Data points that attract at each step; 0 stands for the batch size."""
    lr: float = 1e-3
    """Learning rate of AdamW after the warm-up."""
    warmup: int = 100
    """Steps of linear warm-up of the learning rate."""
    cooldown: float = 0.0
    """Fraction of the steps, at the end, over which the learning rate falls linearly to zero."""
    weight_decay: float = 0.01
    """Decoupled weight decay."""
    clip_norm: float = 1.0
    """Largest norm of the gradient of the weights."""
    ema_decay: float = 0.999
    """Decay per step of the moving average of the weights, which is what is evaluated and saved."""
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

    def __post_init__(self) -> None:
        at_least = {
            "steps": 1,
            "batch_size": 2,
            "data_batch_size": 0,
            "warmup": 0,
            "log_every": 1,
            "save_every": 1,
        }
        for name, least in at_least.items():
            if getattr(self, name) < least:
                raise ValueError(f"{_flag(name)} must be at least {least}, got {getattr(self, name)}")
        for name in ("lr", "clip_norm", "step_size"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{_flag(name)} must be positive, got {getattr(self, name)}")
        for name in ("ema_decay", "cooldown"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{_flag(name)} must lie in [0, 1), got {getattr(self, name)}")


@dataclass(kw_only=True)
class RunConfig(TrainConfig):
    """What every application adds to training: the kernel, where the run lives, and how it is reported."""

    out: Path | None = None
    """Folder of the run; none: runs/<domain>/<time>."""
    data_dir: Path | None = None
    """Folder of the benchmark data; none: $DRIFT_DATA_DIR, else the user's cache."""
    resume: bool = False
    """Continue the run in --out from its newest checkpoint."""
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
        if self.eval_draws < 1:
            raise ValueError(f"--eval-draws must be at least 1, got {self.eval_draws}")
        if self.resume and self.out is None:
            raise ValueError("--resume needs --out, the folder of the run to continue")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
