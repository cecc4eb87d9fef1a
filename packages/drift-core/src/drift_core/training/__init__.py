"""Training: the loop, its settings, processes, checkpoints and networks."""

from drift_core.training.checkpoint import load_best
from drift_core.training.config import (
    BatchConfig,
    FromFile,
    OptimizerConfig,
    RunConfig,
    Settings,
    TrainConfig,
    check_fraction,
    check_positive,
    check_range,
)
from drift_core.training.learner import Generator, Matched, Sampler
from drift_core.training.loop import Training, resample, train, train_together
from drift_core.training.network import in_batches, plain_mlp, residual_mlp
from drift_core.training.parallel import make_accelerator

__all__ = [
    "BatchConfig",
    "FromFile",
    "Generator",
    "Matched",
    "OptimizerConfig",
    "RunConfig",
    "Sampler",
    "Settings",
    "TrainConfig",
    "Training",
    "check_fraction",
    "check_positive",
    "check_range",
    "in_batches",
    "load_best",
    "make_accelerator",
    "plain_mlp",
    "resample",
    "residual_mlp",
    "train",
    "train_together",
]
