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
from drift_core.training.learner import Generator
from drift_core.training.loop import Training, train, train_together
from drift_core.training.network import in_batches, plain_mlp, residual_mlp
from drift_core.training.parallel import make_accelerator
from drift_core.training.samplers import Matched, Sampler, in_runs, resample

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
    "in_runs",
    "load_best",
    "make_accelerator",
    "plain_mlp",
    "resample",
    "residual_mlp",
    "train",
    "train_together",
]
