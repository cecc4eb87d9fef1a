"""One training loop for every domain: draw, drift, regress, average."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from drift_core.drift import drift_loss
from drift_core.field import Batch, Field, observe
from drift_core.manifold.checks import check_on_manifold
from drift_core.training.config import TrainConfig
from drift_core.training.denormal import denormals_as_zero
from drift_core.training.journal import Journal, Step
from drift_core.training.learner import Draws, Generator, Learner, Sampler
from drift_core.training.parallel import make_accelerator
from drift_core.training.signals import deferred_stop

M = TypeVar("M", bound=nn.Module)


def resample(data: Tensor) -> Sampler:
    """Sampler of a finite data set: n distinct rows at a time, or all rows if there are at most n."""

    def draw(n: int, generator: torch.Generator) -> Tensor:
        return data if n >= len(data) else data[torch.randperm(len(data), generator=generator)[:n]]

    return draw


def train(
    module: M,
    field: Field,
    sample_data: Sampler,
    config: TrainConfig,
    out: Path,
    *,
    sample_condition: Sampler | None = None,
    accelerator: Accelerator | None = None,
    resume: bool = False,
    validate: Callable[[M], float] | None = None,
    on_step: Callable[[Batch], None] | None = None,
) -> M:
    """Train a generator on a drift field, and return the moving average of its weights.

    At every step all processes draw the same latents and data from (seed, step), map their own rows, and
    pool the samples; the drift of each row is computed from all samples and data. Torch's random state, which
    dropout uses, is set at every step, and denormal numbers count as zero. Writes metrics.jsonl and
    checkpoints.

    Args:
        module: a `Generator` that is also an nn.Module.
        field: the drift field.
        sample_data: sampler of data points, or of the tokens or indices that represent them.
        config: settings of the optimiser, the batch and the run.
        out: the run folder.
        sample_condition: sampler of conditions, the second argument of the module.
        accelerator: where to run; one process on the best device by default.
        resume: continue exactly from the newest intact checkpoint; from the start if there is none.
        validate: scores the averaged generator at every save, lower is better; `load_best` loads the best.
        on_step: called at every step with the batch that the field saw, on the first process.

    Raises FloatingPointError for numbers that are not finite, OSError for a folder or disk that cannot be
    written, ValueError for invalid settings, data or checkpoints, and KeyboardInterrupt after SIGINT or
    SIGTERM, once the run is saved.
    """
    config.check()
    accelerator = accelerator or make_accelerator()
    learner = Learner(module, config, accelerator)
    journal = Journal(out, field, learner, validate, on_step)
    draw = Draws(cast(Generator, module), field, sample_data, sample_condition, learner)
    follow(field, learner, draw, journal, resume)
    return learner.average


def follow(field: Field, learner: Learner[M], draw: Draws, journal: Journal, resume: bool) -> None:
    """Regress the generator onto the drifted samples until the end of training."""
    manifold, settings = field.manifold, learner.config.optimizer
    check_on_manifold(manifold, draw.data(64, 0))
    start = journal.start(resume)
    learner.warm_up(draw.inputs(len(learner.rows.own), 0))
    with denormals_as_zero(), deferred_stop() as stopping, journal.opened(start):
        for step in range(start, settings.steps):
            x, batch = learner.forward(draw(step))
            with torch.no_grad():
                drift = field(batch)
                observe(field, batch)
            loss = drift_loss(
                manifold, x, drift.field, step_size=settings.step_size, max_step=settings.max_step
            )
            norm = learner.backward(loss)
            journal.check(Step(batch, drift, loss), norm, first=step == start)
            learner.step(step)
            journal.write(Step(batch, drift, loss), stopping())
