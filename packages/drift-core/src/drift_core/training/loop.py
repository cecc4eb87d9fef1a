"""One training loop for every domain: draw, drift, regress, average."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from drift_core.drift import drift_loss
from drift_core.field import Batch, Field, data_device, observe
from drift_core.manifold.checks import check_on_manifold
from drift_core.seeds import generator_for
from drift_core.training.config import TrainConfig
from drift_core.training.denormal import denormals_as_zero
from drift_core.training.guards import check_engine, check_finite
from drift_core.training.journal import Journal, Step
from drift_core.training.learner import DATA, Draws, Generator, Learner, Sampler
from drift_core.training.parallel import make_accelerator
from drift_core.training.signals import deferred_stop

M = TypeVar("M", bound=nn.Module)


def resample(data: Tensor) -> Sampler:
    """Sampler of a finite data set: n distinct rows at a time, or all of them where n is not smaller."""

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

    At every step all processes draw the same latents and data from (seed, step), each maps its own rows,
    the samples are pooled, each row drifts against the whole pool and all data of the step, and the
    generator is regressed onto the moved samples. Logs to metrics.jsonl and checkpoints under `out`.
    Torch's global random state, which dropout uses, is set at every step. Denormal numbers count as zero
    (`denormals_as_zero`).

    Args:
        module: a `Generator` that is also an nn.Module.
        field: the drift field.
        sample_data: maps (n, random generator) to n data points, or tokens, on the CPU.
        config: settings of the optimiser, the batch and the run.
        out: the run folder.
        sample_condition: maps (n, random generator) to n conditions on the CPU; the module is then called
            with latents and conditions, which the field finds in its batch.
        accelerator: where to run; one process on the best device by default.
        resume: continue exactly from the newest sound checkpoint under `out`; from the start if there is
            none.
        validate: scores the moving average whenever the run is saved, lower is better; the best is kept as
            checkpoints/best.pt (`load_best`), the score in metrics.jsonl.
        on_step: called at every step with the batch that the field saw, on the first process, whose samples
            `batch.model` are those of all.

    Raises:
        FloatingPointError: a sample, the drift, the loss or a gradient is not finite.
        OSError: `out` cannot be written, or its disk is too small for the checkpoints.
        ValueError: a setting out of range, data or samples off the manifold, a folder that holds a run
            without `resume`, checkpoints that are all damaged or of another network.
        KeyboardInterrupt: SIGINT or SIGTERM came; the run is saved after the step under way.
    """
    config.check()
    manifold, steps, accelerator = field.manifold, config.optimizer, accelerator or make_accelerator()
    check_engine(accelerator)
    check_on_manifold(manifold, sample_data(64, generator_for(config.run.seed, 0, DATA)))
    devices = accelerator.device, data_device(field, accelerator.device)
    draw = Draws(cast(Generator, module), sample_data, sample_condition, config, *devices)
    learner = Learner(module, config, accelerator)
    journal = Journal(out, field, learner, validate)
    start = journal.start(resume)
    learner.warm_up(draw)
    with denormals_as_zero(), deferred_stop() as stopping, journal.opened(start):
        for step in range(start, steps.steps):
            x, batch = learner.forward(draw(step))
            with torch.no_grad():
                drift = field(batch)
                observe(field, batch)
            if on_step is not None and accelerator.is_main_process:
                on_step(batch)
            loss = drift_loss(manifold, x, drift.field, step_size=steps.step_size, max_step=steps.max_step)
            norm = learner.backward(loss)
            samples, _ = batch.negatives()
            check_finite(norm, {"a sample": samples, "the drift": drift.field, "the loss": loss}, step, out)
            if step == start:
                check_on_manifold(manifold, samples, "the samples of the generator")
            learner.step(step)
            journal.write(Step(batch, drift, loss), stopping())
    return learner.average
