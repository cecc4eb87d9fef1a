"""One training loop for every domain: draw, drift, regress, average."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar, cast, runtime_checkable

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm.auto import tqdm

from drift_core.checkpoint import load_checkpoint, save_checkpoint, trim_records
from drift_core.config import TrainConfig
from drift_core.drift import DriftTerms, cap_step, drift_loss
from drift_core.manifold import Manifold
from drift_core.parallel import any_process, make_accelerator, mean_over_processes, pool, shard
from drift_core.runs import RECORDS
from drift_core.seeds import generator_for
from drift_core.signals import deferred_stop

M = TypeVar("M", bound=nn.Module)

LATENT, DATA = 0, 1
"""Random streams of a training step."""


@runtime_checkable
class Generator(Protocol):
    """A one-step generator: a module that maps noise to points, and knows its noise."""

    def __call__(self, z: Tensor) -> Tensor:
        """Map noise [n, *latent] to points [n, *point]."""

    def latent(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw noise [n, *latent] on the CPU."""


@runtime_checkable
class Field(Protocol):
    """A drift field on a manifold; `drift_core.field.DriftField` is the usual one."""

    @property
    def manifold(self) -> Manifold:
        """The geometry of the points."""

    def terms(
        self, x: Tensor, data: Tensor, model: Tensor, self_index: Tensor, progress: float
    ) -> DriftTerms:
        """Attraction of x to the data and repulsion from the model."""

    def effective_samples(self, x: Tensor, data: Tensor, progress: float) -> float:
        """Mean effective number of data points per query."""


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
    accelerator: Accelerator | None = None,
    resume: bool = False,
) -> M:
    """Train a generator on a drift field, and return the moving average of its weights.

    At every step all processes draw the same noise and data from (seed, step), each maps its own rows,
    the samples are pooled, each row drifts against the whole pool and the whole data draw, and the
    generator is regressed onto the moved samples. Logs to metrics.jsonl and checkpoints under `out`.

    Args:
        module: a `Generator` that is also an nn.Module.
        field: the drift field.
        sample_data: maps (n, random generator) to n data points on the CPU.
        config: optimiser, step and logging settings.
        out: the run folder.
        accelerator: where to run; one process on the best device by default.
        resume: continue exactly from the newest checkpoint under `out`; from the start if there is none.

    Raises:
        FloatingPointError: a sample, the drift or the loss is not finite.
        ValueError: data off the manifold.
        KeyboardInterrupt: SIGINT or SIGTERM came; the run is saved after the step under way.
    """
    accelerator = accelerator or make_accelerator()
    device, main = accelerator.device, accelerator.is_main_process
    _check_on_manifold(field.manifold, sample_data(64, generator_for(config.seed, 0, DATA)))
    optimizer = torch.optim.AdamW(module.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    model, optimizer = accelerator.prepare(module, optimizer)
    plain = accelerator.unwrap_model(model)
    average = get_ema_multi_avg_fn(config.ema_decay)  # type: ignore[no-untyped-call]
    ema = AveragedModel(plain, multi_avg_fn=average, use_buffers=True)
    parts = {"model": plain, "ema": ema, "optimizer": optimizer}
    start = load_checkpoint(out, parts, device) if resume else 0
    if main:
        trim_records(out, start)
    sizes, own, share = shard(accelerator, config.batch_size)
    bar = tqdm(initial=start, total=config.steps, desc="train", disable=not main, mininterval=0.5)
    with deferred_stop() as stopping, bar:
        for step in range(start, config.steps):
            progress, done = step / config.steps, step + 1
            z = plain.latent(config.batch_size, generator_for(config.seed, step, LATENT)).to(device)
            count = config.data_batch_size or config.batch_size
            data = sample_data(count, generator_for(config.seed, step, DATA)).to(device)
            x = model(z[own]).float()
            with torch.no_grad():
                terms = field.terms(x.detach(), data, pool(accelerator, x, sizes), own, progress)
            loss = drift_loss(
                field.manifold, x, terms.field, step_size=config.step_size, max_step=config.max_step
            )
            _check_finite(step, x, terms.field, loss)
            # Gradients are averaged over processes, so that each counts by its share of the batch.
            accelerator.backward(loss * share)
            accelerator.clip_grad_norm_(model.parameters(), config.clip_norm)
            for group in optimizer.param_groups:
                group["lr"] = config.lr * _lr_factor(config, step)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            ema.update_parameters(plain)
            bar.update()
            if done % config.log_every == 0 or done == config.steps:
                record = _record(field, config, x.detach(), data, terms, loss, step)
                record = mean_over_processes(accelerator, record, share)
                _log(accelerator, out, done, record)
                bar.set_postfix(loss=f"{record['loss']:.2e}", drift=f"{record['drift_norm']:.2g}")
            stop = any_process(accelerator, stopping())
            if (stop or done % config.save_every == 0 or done == config.steps) and main:
                save_checkpoint(out, done, parts)
            if stop and done < config.steps:
                raise KeyboardInterrupt
    return cast(M, ema.module)


def _lr_factor(config: TrainConfig, step: int) -> float:
    """Linear warm-up, constant, linear cool-down."""
    left = (config.steps - step) / max(1.0, config.cooldown * config.steps)
    return min(1.0, (step + 1) / max(1, config.warmup), left)


def _record(
    field: Field,
    config: TrainConfig,
    x: Tensor,
    data: Tensor,
    terms: DriftTerms,
    loss: Tensor,
    step: int,
) -> dict[str, float]:
    """What is logged of a step: loss, lengths of the raw field and its parts, sample size, capped share."""
    manifold = field.manifold
    _, clipped = cap_step(manifold, x, config.step_size * terms.field, config.max_step)
    return {
        "loss": float(loss.detach()),
        "drift_norm": float(manifold.norm(x, terms.field).mean()),
        "attraction_norm": float(manifold.norm(x, terms.attraction).mean()),
        "repulsion_norm": float(manifold.norm(x, terms.repulsion).mean()),
        "ess": field.effective_samples(x[:256], data, step / config.steps),
        "clipped": float(clipped.float().mean()),
        "lr": config.lr * _lr_factor(config, step),
    }


def _log(accelerator: Accelerator, out: Path, step: int, record: dict[str, float]) -> None:
    accelerator.log(record, step=step)
    if accelerator.is_main_process:
        with (out / RECORDS).open("a") as file:
            file.write(json.dumps({"step": step, **record}) + "\n")


def _check_finite(step: int, x: Tensor, v: Tensor, loss: Tensor) -> None:
    if bool(loss.isfinite()):
        return
    culprit = (
        "a sample"
        if not bool(x.isfinite().all())
        else "the drift"
        if not bool(v.isfinite().all())
        else "the loss"
    )
    raise FloatingPointError(f"step {step}: {culprit} is not finite; try a smaller --lr or --step-size")


def _check_on_manifold(manifold: Manifold, points: Tensor) -> None:
    if not bool(points.isfinite().all()):
        raise ValueError("the data hold NaN or infinite coordinates")
    off = float((manifold.projx(points) - points).abs().max())
    if off > 1e-3:
        raise ValueError(f"the data lie off {manifold!r}: projecting them moves a coordinate by {off:.3g}")
