"""Log, checkpoints, best weights and warnings of a run."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from drift_core.drift import cap_step
from drift_core.field import Batch, Drift, Field, diagnostics, modules_of
from drift_core.files import atomic_path, finite_or_none, naming
from drift_core.manifold.checks import check_on_manifold
from drift_core.training.checkpoint import (
    TrainState,
    drop_old,
    keep_best,
    load_checkpoint,
    save_checkpoint,
)
from drift_core.training.config import OptimizerConfig
from drift_core.training.guards import Watch, check_finite, check_space, check_unused, warnings_of
from drift_core.training.learner import Learner
from drift_core.training.network import evaluating
from drift_core.training.parallel import any_process, mean_over_processes, on_main, same_on_all, warn
from drift_core.training.records import RECORDS

_PROBES = 256
"""Samples of a step on which diagnostics are computed."""


class Step(NamedTuple):
    """Result of a training step on this process."""

    batch: Batch
    drift: Drift
    loss: Tensor


class Journal:
    """Logs, validates and saves a run in its folder.

    Args:
        out: the run folder.
        field: the drift field, whose state is saved in checkpoints.
        learner: the learner of the generator.
        validate: scores the averaged generator whenever the run is saved, lower is better.
        on_step: called at every step with its batch, on the first process.
    """

    def __init__(
        self,
        out: Path,
        field: Field,
        learner: Learner[Any],
        validate: Callable[[Any], float] | None,
        on_step: Callable[[Batch], None] | None,
    ) -> None:
        self.out, self.field, self.learner = out, field, learner
        self.validate, self.on_step = validate, on_step
        self.accelerator, self.config = learner.accelerator, learner.config
        self.warn = partial(warn, self.accelerator)
        self.watch = Watch(self.warn)
        self.parts = learner.parts
        if modules := modules_of(field):
            self.parts["field"] = nn.ModuleList(modules).to(self.accelerator.device)
        self.state = TrainState()
        self.bar = tqdm(disable=True)

    def start(self, resume: bool) -> int:
        """First step to run: 0 or, with `resume`, that of the newest intact checkpoint, which is loaded."""
        if not resume:
            on_main(self.accelerator, partial(check_unused, self.out))
        else:
            self.state = load_checkpoint(self.out, self.parts, self.warn)
        start, steps = same_on_all(self.accelerator, self.state.step, "checkpoints"), self._steps
        if start > steps:
            raise ValueError(f"{self.out} is at step {start} already, beyond `steps` {steps}")
        on_main(self.accelerator, partial(self._make_room, start))
        return start

    @contextmanager
    def opened(self, start: int) -> Iterator[None]:
        """Context with a progress bar; first restores the log to its state at the first step."""
        silent = {} if self.accelerator.is_main_process else {"disable": True}  # else TQDM_DISABLE decides
        with tqdm(initial=start, total=self._steps, desc="train", mininterval=0.5, **silent) as self.bar:
            if self.accelerator.is_main_process:
                with atomic_path(self.out / RECORDS) as part:
                    part.write_text(self.state.records)
            yield

    def check(self, taken: Step, norm: Tensor, *, first: bool) -> None:
        """Refuse a step that is not finite, or samples off the manifold, before the weights change.

        Args:
            taken: the step.
            norm: norm of the gradient over all processes.
            first: whether it is the first step, when samples are checked.
        """
        samples, _ = taken.batch.negatives()
        values = {"a sample": samples, "the drift": taken.drift.field, "the loss": taken.loss}
        check_finite(norm, values, taken.batch.step, self.out)
        if first:
            check_on_manifold(self.field.manifold, samples, "the samples of the generator")

    def write(self, taken: Step, stopping: bool) -> bool:
        """Log and save a step when due, or when some process is `stopping`; return whether to stop then."""
        done, run = taken.batch.step + 1, self.config.run
        self.bar.update()
        if self.on_step is not None and self.accelerator.is_main_process:
            self.on_step(taken.batch)
        last = done == self._steps
        saves = last or done % run.save_every == 0
        if last or done % run.log_every == 0 or (saves and self.validate):
            self._log(done, taken, saves)
        stop = any_process(self.accelerator, stopping)
        if (stop or saves) and self.accelerator.is_main_process:
            save_checkpoint(self.out, done, self.state.best, self.parts, keep=run.keep)
        if stop and not last:
            self.accelerator.wait_for_everyone()  # launchers end all processes when the first one ends
        return stop and not last

    @property
    def _steps(self) -> int:
        return self.config.optimizer.steps

    def _make_room(self, start: int) -> None:
        drop_old(self.out, start, self.config.run.keep)  # a run may have been killed before it did
        check_space(self.out, self.learner.module, self.config.run.keep)

    def _log(self, done: int, taken: Step, saves: bool) -> None:
        found = record(self.field, self.config.optimizer, taken)
        found = mean_over_processes(self.accelerator, found, self.learner.rows.share)
        if saves and self.validate and self.accelerator.is_main_process:
            found["validation"] = self._validated(done)
        self.accelerator.log(found, step=done)
        if self.accelerator.is_main_process:
            with naming(self.out / RECORDS), (self.out / RECORDS).open("a") as file:
                file.write(json.dumps(finite_or_none({"step": done, **found})) + "\n")
        model, _ = taken.batch.negatives()
        self.watch(done, warnings_of(self.field.manifold, model, taken.batch.data, found["clipped"]))
        shown = {"drift": found["drift_norm"], **({"ess": found["ess"]} if "ess" in found else {})}
        self.bar.set_postfix({name: f"{value:.3g}" for name, value in shown.items()})

    def _validated(self, done: int) -> float:
        """Validation score of the averaged weights, which are saved if it is the best so far."""
        average = self.learner.average
        assert self.validate is not None
        with evaluating(average), torch.no_grad():
            score = self.validate(average)
        best = keep_best(self.out, done, self.state.best, score, average)
        self.state = self.state._replace(best=best)
        return score


def record(field: Field, optimizer: OptimizerConfig, taken: Step) -> dict[str, float]:
    """Logged values of a step: loss, norms of the drift, diagnostics, clipped steps, learning rate."""
    manifold, (batch, drift, loss) = field.manifold, taken
    x = batch.x
    _, clipped = cap_step(manifold, x, optimizer.step_size * drift.field, optimizer.max_step)
    return {
        "loss": float(loss.detach()),
        "drift_norm": float(manifold.norm(x, drift.field).mean()),
        "attraction_norm": float(manifold.norm(x, drift.attraction).mean()),
        "repulsion_norm": float(manifold.norm(x, drift.repulsion).mean()),
        **diagnostics(field, batch.head(_PROBES)),
        "clipped": float(clipped.float().mean()),
        "lr": optimizer.lr_at(batch.step),
    }
