"""One training loop for every domain: draw, drift, regress, average."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm.auto import tqdm

from drift_core.drift import cap_step, drift_loss
from drift_core.field import Batch, Drift, Field, diagnostics, modules_of, observe
from drift_core.files import atomic_path, finite_or_none, naming
from drift_core.manifold.checks import check_on_manifold
from drift_core.seeds import generator_for
from drift_core.training.checkpoint import (
    Stateful,
    TrainState,
    drop_old,
    keep_best,
    load_checkpoint,
    save_checkpoint,
)
from drift_core.training.config import TrainConfig
from drift_core.training.denormal import denormals_as_zero
from drift_core.training.guards import (
    Watch,
    check_engine,
    check_finite,
    check_space,
    check_unused,
    warnings_of,
)
from drift_core.training.network import MicroBatches, evaluating
from drift_core.training.parallel import (
    Shard,
    any_process,
    make_accelerator,
    mean_over_processes,
    on_main,
    pool,
    same_on_all,
    shard,
    warm_up,
    warn,
)
from drift_core.training.records import RECORDS
from drift_core.training.signals import deferred_stop

M = TypeVar("M", bound=nn.Module)

LATENT, DATA, NETWORK, CONDITION = 0, 1, 2, 3
"""Random streams of a training step; the network's own (dropout) is one a process."""


@runtime_checkable
class Generator(Protocol):
    """A one-step generator: a module that maps noise to points, and knows its noise.

    A conditional one is called with the noise and the conditions [n, ...].
    """

    def __call__(self, z: Tensor) -> Tensor:
        """Map noise [n, *latent] to points [n, *point]."""

    def latent(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw noise [n, *latent] on the CPU."""


_PROBES = 256
"""Samples of a step at which the field is asked for its diagnostics."""


def resample(data: Tensor) -> Callable[[int, torch.Generator], Tensor]:
    """Sampler of a finite data set: n distinct rows at a time, or all of them where n is not smaller."""

    def draw(n: int, generator: torch.Generator) -> Tensor:
        return data if n >= len(data) else data[torch.randperm(len(data), generator=generator)[:n]]

    return draw


def train(
    module: M,
    field: Field,
    sample_data: Callable[[int, torch.Generator], Tensor],
    config: TrainConfig,
    out: Path,
    *,
    sample_condition: Callable[[int, torch.Generator], Tensor] | None = None,
    accelerator: Accelerator | None = None,
    resume: bool = False,
    validate: Callable[[M], float] | None = None,
    on_step: Callable[[Batch], None] | None = None,
) -> M:
    """Train a generator on a drift field, and return the moving average of its weights.

    At every step all processes draw the same noise and data from (seed, step), each maps its own rows,
    the samples are pooled, each row drifts against the whole pool and the whole data draw, and the
    generator is regressed onto the moved samples. Logs to metrics.jsonl and checkpoints under `out`.
    Torch's global random state, which dropout uses, is set at every step. Denormal numbers count as zero
    (`denormals_as_zero`).

    Args:
        module: a `Generator` that is also an nn.Module.
        field: the drift field.
        sample_data: maps (n, random generator) to n data points, or tokens, on the CPU.
        config: optimiser, step and logging settings.
        out: the run folder.
        sample_condition: maps (n, random generator) to n conditions on the CPU; the module is then called
            with noise and conditions, which the field finds in its batch.
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
        ValueError: data or samples off the manifold, a folder that holds a run without `resume`,
            checkpoints that are all damaged or of another network.
        KeyboardInterrupt: SIGINT or SIGTERM came; the run is saved after the step under way.
    """
    accelerator = accelerator or make_accelerator()
    device, rank, main = accelerator.device, accelerator.process_index, accelerator.is_main_process
    check_engine(accelerator)
    if not resume:
        on_main(accelerator, partial(check_unused, out))
    check_on_manifold(field.manifold, sample_data(64, generator_for(config.seed, 0, DATA)))
    draw = partial(_inputs, cast(Generator, module), sample_condition, config.seed)
    rows = shard(accelerator, config.batch_size)
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    optimizer = kind(module.parameters(), lr=config.lr)
    model, optimizer = accelerator.prepare(MicroBatches(module, config.micro_batch_size), optimizer)
    average = get_ema_multi_avg_fn(config.ema_decay)  # type: ignore[no-untyped-call]
    ema = AveragedModel(module, multi_avg_fn=average, use_buffers=True)
    parts: dict[str, Stateful] = {"model": module, "ema": ema, "optimizer": optimizer}
    if modules := modules_of(field):  # what learns or remembers, such as a BalancedField
        parts["field"] = nn.ModuleList(modules).to(device)
    tell = partial(warn, accelerator)
    mark = load_checkpoint(out, parts, tell) if resume else TrainState()
    start, best = same_on_all(accelerator, mark.step, "checkpoints"), mark.best
    if start > config.steps:
        raise ValueError(f"{out} is at step {start} already, beyond --steps {config.steps}")
    on_main(accelerator, partial(_make_room, out, module, start, config.keep))
    warm_up(accelerator, model, *draw(len(rows.own), 0, device))
    watch = Watch(tell)
    silent = {} if main else {"disable": True}  # otherwise TQDM_DISABLE decides
    bar = tqdm(initial=start, total=config.steps, desc="train", mininterval=0.5, **silent)
    with denormals_as_zero(), deferred_stop() as stopping, bar:
        if main:
            with atomic_path(out / RECORDS) as part:
                part.write_text(mark.records)
        for step in range(start, config.steps):
            done = step + 1
            torch.manual_seed(generator_for(config.seed, step, NETWORK, rank).initial_seed())
            inputs = draw(config.batch_size + config.num_negatives, step, device)
            count = config.num_positives or config.batch_size
            data = sample_data(count, generator_for(config.seed, step, DATA)).to(device)
            batch, drift, loss = _drift(accelerator, model, field, config, rows, inputs, data, step)
            pooled = cast(Tensor, batch.model)
            if on_step is not None and main:
                on_step(batch)
            # Gradients are averaged over processes, so that each counts by its share of the batch.
            accelerator.backward(loss * rows.share)
            norm = accelerator.clip_grad_norm_(model.parameters(), config.clip_norm)
            check_finite(step, out, pooled, drift.field, loss, norm)
            if step == start:
                check_on_manifold(field.manifold, pooled, "the samples of the generator")
            for group in optimizer.param_groups:
                group.update(_optimizer_settings(config, step))
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            ema.update_parameters(module)
            bar.update()
            saves = done % config.save_every == 0 or done == config.steps
            if done % config.log_every == 0 or done == config.steps or (saves and validate):
                record = _record(field, config, batch, drift, loss)
                record = mean_over_processes(accelerator, record, rows.share)
                if saves and validate and main:
                    with evaluating(ema.module), torch.no_grad():
                        record["validation"] = validate(cast(M, ema.module))
                    best = keep_best(out, done, best, record["validation"], ema.module)
                _log(accelerator, out, done, record)
                watch(done, warnings_of(field.manifold, pooled, data, record["clipped"]))
                bar.set_postfix(loss=f"{record['loss']:.2e}", drift=f"{record['drift_norm']:.2g}")
            stop = any_process(accelerator, stopping())
            if (stop or saves) and main:
                save_checkpoint(out, done, best, parts, keep=config.keep)
            if stop and done < config.steps:
                accelerator.wait_for_everyone()  # launchers end all processes when the first one ends
                raise KeyboardInterrupt
    return cast(M, ema.module)


def _drift(
    accelerator: Accelerator,
    model: nn.Module,
    field: Field,
    config: TrainConfig,
    rows: Shard,
    inputs: Sequence[Tensor],
    data: Tensor,
    step: int,
) -> tuple[Batch, Drift, Tensor]:
    """This process's samples, their batch, its drift, and the loss against where it leads.

    `inputs` are the noise of all samples, negatives last, and the conditions if there are any.
    """
    own = [part[rows.own] for part in inputs]
    with torch.no_grad():
        negatives = _negatives(accelerator, model, [part[config.batch_size :] for part in inputs])
    x = model(*own)
    with torch.no_grad():
        pooled = torch.cat([pool(accelerator, x, rows.sizes), *negatives])
        conditions = (own[1], inputs[1]) if len(inputs) > 1 else (None, None)
        batch = Batch(x.detach(), data, pooled, rows.own, step, step / config.steps, *conditions)
        drift = field(batch)
        observe(field, batch)
    loss = drift_loss(field.manifold, x, drift.field, step_size=config.step_size, max_step=config.max_step)
    return batch, drift, loss


def _make_room(out: Path, module: nn.Module, start: int, keep: int) -> None:
    drop_old(out, start, keep)  # a run may have been killed before it did
    check_space(out, module, keep)


def _inputs(
    module: Generator,
    sample_condition: Callable[[int, torch.Generator], Tensor] | None,
    seed: int,
    n: int,
    step: int,
    device: torch.device,
) -> list[Tensor]:
    """Noise of n samples at a step and, if the generator is conditional, their conditions."""
    inputs = [module.latent(n, generator_for(seed, step, LATENT))]
    if sample_condition is not None:
        inputs.append(sample_condition(n, generator_for(seed, step, CONDITION)))
    return [part.to(device) for part in inputs]


def _negatives(accelerator: Accelerator, model: nn.Module, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Samples that only repel, pooled over processes."""
    if not len(inputs[0]):
        return []
    rows = shard(accelerator, len(inputs[0]))
    return [pool(accelerator, model(*(part[rows.own] for part in inputs)), rows.sizes)]


def _optimizer_settings(config: TrainConfig, step: int) -> dict[str, Any]:
    """Settings of the optimiser at a step; a checkpoint would bring those that it was saved with."""
    return {
        "lr": config.lr * _lr_factor(config, step),
        "betas": (config.beta1, config.beta2),
        "weight_decay": config.weight_decay,
        "decoupled_weight_decay": config.optimizer == "adamw",
    }


def _lr_factor(config: TrainConfig, step: int) -> float:
    """Linear warm-up, constant, cool-down as a power of the steps left; constant to the end if it is 0."""
    left = min(1.0, (config.steps - step) / max(1.0, config.decay_fraction * config.steps))
    return min((step + 1) / max(1, config.warmup), 1.0, left**config.decay_power)


def _record(field: Field, config: TrainConfig, batch: Batch, drift: Drift, loss: Tensor) -> dict[str, float]:
    """What is logged of a step: loss, lengths of the drift and its parts, the field's own, capped share."""
    manifold, x = field.manifold, batch.x
    _, clipped = cap_step(manifold, x, config.step_size * drift.field, config.max_step)
    return {
        "loss": float(loss.detach()),
        "drift_norm": float(manifold.norm(x, drift.field).mean()),
        "attraction_norm": float(manifold.norm(x, drift.attraction).mean()),
        "repulsion_norm": float(manifold.norm(x, drift.repulsion).mean()),
        **diagnostics(field, batch.head(_PROBES)),
        "clipped": float(clipped.float().mean()),
        "lr": config.lr * _lr_factor(config, batch.step),
    }


def _log(accelerator: Accelerator, out: Path, step: int, record: dict[str, float]) -> None:
    accelerator.log(record, step=step)
    if accelerator.is_main_process:
        with naming(out / RECORDS), (out / RECORDS).open("a") as file:
            file.write(json.dumps(finite_or_none({"step": step, **record})) + "\n")
