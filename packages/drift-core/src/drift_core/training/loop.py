"""One training loop for every domain: draw, drift, regress, average."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar, cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from drift_core.drift import drift_loss
from drift_core.field import Batch, Field, observe
from drift_core.manifold.checks import check_on_manifold
from drift_core.training.config import TrainConfig
from drift_core.training.denormal import denormals_as_zero
from drift_core.training.ensemble import check_stackable, forward_together
from drift_core.training.journal import Journal, Step
from drift_core.training.learner import Draws, Generator, Learner
from drift_core.training.parallel import make_accelerator
from drift_core.training.samplers import Sampler
from drift_core.training.signals import deferred_stop

M = TypeVar("M", bound=nn.Module)


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
    training = Training(module, field, sample_data, config, out, sample_condition, resume, validate, on_step)
    (average,) = train_together([training], accelerator)
    return average


@dataclass(frozen=True)
class Training(Generic[M]):
    """What `train` takes, for one of several generators that are trained together."""

    module: M
    field: Field
    sample_data: Sampler
    config: TrainConfig
    out: Path
    sample_condition: Sampler | None = None
    resume: bool = False
    validate: Callable[[M], float] | None = None
    on_step: Callable[[Batch], None] | None = None


def train_together(trainings: Sequence[Training[M]], accelerator: Accelerator | None = None) -> list[M]:
    """Train generators of one architecture on one device, each as `train` would, in joint forward passes.

    Each has its own seed, latents, data, field, optimiser and run folder, and ends, to rounding, with the
    weights that it would have alone. One step of S networks starts as many operations as that of one. On a
    CPU that pays for batches up to about 64 (8 seeds: 3.6 ms a seed and step, not 5.6); in larger ones
    the products take the time.

    Raises ValueError for networks that differ in more than their weights, that draw random numbers, or that
    run in several processes; otherwise as `train`.
    """
    accelerator = accelerator or make_accelerator()
    members = []
    for part in trainings:
        part.config.check()
        learner = Learner(part.module, part.config, accelerator)
        journal = Journal(part.out, part.field, learner, part.validate, part.on_step)
        generator = cast(Generator, part.module)
        draw = Draws(generator, part.field, part.sample_data, part.sample_condition, learner)
        members.append(Member(part.field, learner, draw, journal, part.resume))
    check_stackable([member.learner for member in members])
    follow(members)
    return [member.learner.average for member in members]


class Member(NamedTuple):
    """A generator in training, with its field, its random draws and its log."""

    field: Field
    learner: Learner[Any]
    draw: Draws
    journal: Journal
    resume: bool

    def start(self) -> int:
        """First step to run."""
        check_on_manifold(self.field.manifold, self.draw.data(64, 0))
        start = self.journal.start(self.resume)
        self.learner.warm_up(self.draw.inputs(len(self.learner.rows.own), 0))
        return start

    def evaluate(self, x: Tensor, batch: Batch) -> Step:
        """The drift of the samples, and the loss of regressing them onto it."""
        settings = self.learner.config.optimizer
        with torch.no_grad():
            drift = self.field(batch)
            observe(self.field, batch)
        step_size, max_step = settings.step_size, settings.max_step
        loss = drift_loss(self.field.manifold, x, drift.field, step_size=step_size, max_step=max_step)
        return Step(batch, drift, loss)


def follow(members: Sequence[Member]) -> None:
    """Regress the generators onto the drifted samples until the end of training."""
    starts = [member.start() for member in members]
    with denormals_as_zero(), deferred_stop() as stopping, ExitStack() as logs:
        for member, start in zip(members, starts, strict=True):
            logs.enter_context(member.journal.opened(start))
        for step in range(min(starts), members[0].learner.config.optimizer.steps):
            due = [member for member, start in zip(members, starts, strict=True) if start <= step]
            learners = [member.learner for member in due]
            forward = forward_together(learners, [member.draw(step) for member in due])
            taken = [member.evaluate(*found) for member, found in zip(due, forward, strict=True)]
            learners[0].backward(torch.stack([part.loss for part in taken]).sum())
            for member, part in zip(due, taken, strict=True):
                member.journal.check(part, member.learner.clip(), first=step in starts)
            for learner in learners:
                learner.step(step)
            stop = stopping()
            stops = [member.journal.write(part, stop) for member, part in zip(due, taken, strict=True)]
            if any(stops):
                raise KeyboardInterrupt
