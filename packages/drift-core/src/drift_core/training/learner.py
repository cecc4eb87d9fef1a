"""A generator in training: its inputs, its forward pass over all processes, and its optimiser."""

from typing import Any, Generic, NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from drift_core.field import Batch, Field, data_device
from drift_core.seeds import generator_for
from drift_core.training.checkpoint import Stateful
from drift_core.training.config import OptimizerConfig, TrainConfig
from drift_core.training.guards import check_engine
from drift_core.training.muon import Muon, hidden_matrices
from drift_core.training.network import MicroBatches, MovingAverage
from drift_core.training.parallel import pool, shard, warm_up
from drift_core.training.samplers import Matched, Sampler

M = TypeVar("M", bound=nn.Module)

LATENT, DATA, NETWORK, CONDITION = 0, 1, 2, 3
"""Random streams of a training step; the network's own (dropout) has one per process."""


@runtime_checkable
class Generator(Protocol):
    """A one-step generator: a module that maps latents to points, and draws its latents.

    A conditional one is called with latents and conditions [n, ...].
    """

    def __call__(self, z: Tensor) -> Tensor:
        """Map latents [n, *latent] to points [n, *point]."""

    def latent(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw latents [n, *latent] on the CPU."""


class Draw(NamedTuple):
    """Inputs of a training step, the same on every process."""

    step: int
    inputs: list[Tensor]
    """Latents of all samples, negatives last; for a conditional generator also their conditions."""
    data: Tensor
    """Data points, or the tokens or indices that represent them."""


class Learner(Generic[M]):
    """A generator with its optimiser and the moving average of its weights, on every process.

    Args:
        module: a `Generator` that is also an nn.Module.
        config: settings of training.
        accelerator: connects the processes, each of which owns some rows of the batch.
    """

    def __init__(self, module: M, config: TrainConfig, accelerator: Accelerator) -> None:
        check_engine(accelerator)
        self.module, self.config, self.accelerator = module, config, accelerator
        self.rows = shard(accelerator, config.batch.batch_size)
        network = MicroBatches(module, config.batch.micro_batch_size)
        self.network, prepared = accelerator.prepare(network, make_optimizer(module, config.optimizer))
        # Not Accelerate's wrapper, which looks for a package on the disk at every step.
        self.optimizer = prepared.optimizer
        self.weights = list(module.parameters())
        self.ema = MovingAverage(module)

    @property
    def average(self) -> M:
        """The generator with the moving average of the weights."""
        return self.ema.module

    @property
    def parts(self) -> dict[str, Stateful]:
        """Parts that are saved in a checkpoint."""
        return {"model": self.module, "ema": self.average, "optimizer": self.optimizer}

    def warm_up(self, inputs: list[Tensor]) -> None:
        """Run a backward pass before the first step (`drift_core.training.parallel.warm_up`)."""
        warm_up(self.accelerator, self.network, *inputs)

    def forward(self, draw: Draw) -> tuple[Tensor, Batch]:
        """Samples [n, *point] of this process, with gradients, and the batch for the field."""
        self._seed_network(draw.step)
        negatives = self.negatives(draw)
        x = self.network(*self.own(draw))
        return x, self.batch(draw, x, negatives)

    def own(self, draw: Draw) -> list[Tensor]:
        """Inputs of this process's rows."""
        return [part[self.rows.own] for part in draw.inputs]

    @torch.no_grad()
    def negatives(self, draw: Draw) -> list[Tensor]:
        """Samples that only repel, pooled over processes; empty if there are none."""
        inputs = [part[self.config.batch.batch_size :] for part in draw.inputs]
        if not len(inputs[0]):
            return []
        rows = shard(self.accelerator, len(inputs[0]))
        return [pool(self.accelerator, self.network(*(part[rows.own] for part in inputs)), rows.sizes)]

    def batch(self, draw: Draw, x: Tensor, negatives: list[Tensor]) -> Batch:
        """Batch for the field at the samples x of this process."""
        step, steps, own = draw.step, self.config.optimizer.steps, self.rows.own
        model = torch.cat([pool(self.accelerator, x, self.rows.sizes), *negatives])
        conditions = (draw.inputs[1][own], draw.inputs[1]) if len(draw.inputs) > 1 else (None, None)
        return Batch(x.detach(), draw.data, model, own, step, step / steps, *conditions)

    def backward(self, loss: Tensor) -> None:
        """Compute the gradients over all processes."""
        # Accelerate averages gradients over processes; the factor weights each by its share of the batch.
        self.accelerator.backward(loss * self.rows.share)

    def clip(self) -> Tensor:
        """Clip the gradients, and return their norm before."""
        return nn.utils.clip_grad_norm_(self.weights, self.config.optimizer.clip_norm)

    def step(self, step: int) -> None:
        """Update the weights and their moving average."""
        for group in self.optimizer.param_groups:
            group.update(self.config.optimizer.parameters_at(step))  # not those of a checkpoint
        self.optimizer.step()
        for weight in self.weights:
            weight.grad = None
        self.ema.update(1 - self.config.optimizer.averaging if step else 1.0)

    def _seed_network(self, step: int) -> None:
        """Set torch's random state, which dropout draws from."""
        rank = self.accelerator.process_index
        seed = generator_for(self.config.run.seed, step, NETWORK, rank).initial_seed()
        # On machines without a GPU torch.manual_seed takes 0.1 ms, to record a call for when there is one.
        (torch.default_generator if self.accelerator.device.type == "cpu" else torch).manual_seed(seed)


def make_optimizer(module: nn.Module, settings: OptimizerConfig) -> torch.optim.Optimizer:
    """The optimiser, in one fused kernel, or in several where a device has none."""
    try:
        return _make_optimizer(module, settings, fused=True)
    except RuntimeError:
        return _make_optimizer(module, settings, fused=False)


def _make_optimizer(module: nn.Module, settings: OptimizerConfig, *, fused: bool) -> torch.optim.Optimizer:
    if settings.optimizer == "muon":
        matrices = hidden_matrices(module)
        known = {id(weight) for weight in matrices}
        others = [weight for weight in module.parameters() if id(weight) not in known]
        return Muon(matrices, others, lr=settings.lr, fused=fused)
    kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    return kind(module.parameters(), lr=settings.lr, fused=fused)


class Draws:
    """Draws latents, conditions and data of a step from (seed, step) alone."""

    def __init__(
        self,
        module: Generator,
        field: Field,
        sample_data: Sampler,
        sample_condition: Sampler | None,
        learner: Learner[Any],
    ) -> None:
        self.module, self.sample_data, self.sample_condition = module, sample_data, sample_condition
        self.batch, self.seed = learner.config.batch, learner.config.run.seed
        self.device = learner.accelerator.device
        self.data_device = data_device(field, self.device)

    def __call__(self, step: int) -> Draw:
        """Draw the inputs of a step, on the device."""
        inputs = self.inputs(self.batch.batch_size + self.batch.num_negatives, step)
        return Draw(step, inputs, self.data(self.batch.positives, step, *inputs[1:]))

    def data(self, n: int, step: int, conditions: Tensor | None = None) -> Tensor:
        """Data of a step, of the samples' conditions if they are `Matched`, where the field reads them."""
        generator, sample = generator_for(self.seed, step, DATA), self.sample_data
        if isinstance(sample, Matched) and conditions is not None:
            return sample.matching(conditions, n, generator).to(self.data_device)
        return sample(n, generator).to(self.data_device)

    def inputs(self, n: int, step: int) -> list[Tensor]:
        """Latents of n samples at a step and, for a conditional generator, their conditions."""
        inputs = [self.module.latent(n, generator_for(self.seed, step, LATENT))]
        if self.sample_condition is not None:
            inputs.append(self.sample_condition(n, generator_for(self.seed, step, CONDITION)))
        return [part.to(self.device) for part in inputs]
