"""Particle flow: points that follow the drift field directly, without a network."""

from collections.abc import Callable, Collection
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from drift_core.drift import cap_step
from drift_core.field import Batch, Field, observe
from drift_core.manifold.checks import check_on_manifold
from drift_core.seeds import generator_for

DataSampler = Callable[[int, torch.Generator], Tensor]
"""Maps (n, random generator) to n data points, or tokens or indices that represent them, on the CPU."""


class Flow(NamedTuple):
    """Particles at the end of a flow, and at its recorded steps."""

    x: Tensor
    """Particles after the last step, shape [n, *point]."""
    records: dict[int, Tensor]
    """Particles by the number of steps taken; 0 is the start."""


@torch.no_grad()
def particle_flow(
    field: Field,
    x: Float[Tensor, "n ..."],
    data: Float[Tensor, "m ..."] | DataSampler,
    *,
    steps: int,
    step_size: float,
    max_step: float | None = None,
    record: Collection[int] = (),
    seed: int = 0,
) -> Flow:
    """Move particles along their drift field, x <- exp_x(step_size V(x)), `steps` times.

    Every particle is attracted to the data and repelled by all others. Lengthscales anneal with the fraction
    of the steps done, as in training. It shows the dynamics of a field, without the limits of a network.

    Args:
        field: the drift field.
        x: particles at the start, shape [n, *point], n >= 1.
        data: data points, tokens or indices, or a sampler that is asked for n new ones at every step.
        steps: number of steps.
        step_size: how far particles follow the drift at each step.
        max_step: longest step of a particle; none: just below the injectivity radius.
        record: steps, from 0 to `steps`, after which to keep the particles.
        seed: seed of the sampler's draws.

    Raises:
        ValueError: numbers out of range, or particles or data that are not finite or off the manifold.
        FloatingPointError: the particles are no longer finite.
    """
    if steps < 1 or not step_size > 0:
        raise ValueError(f"steps and step_size must be positive, got {steps} and {step_size}")
    if not set(record) <= set(range(steps + 1)):
        raise ValueError(f"recorded steps must lie in 0..{steps}, got {sorted(record)}")
    manifold, itself = field.manifold, torch.arange(len(x), device=x.device)
    check_on_manifold(manifold, x)
    records = {0: x} if 0 in record else {}
    for step in range(steps):
        references = _drawn(data, x, generator_for(seed, step)) if callable(data) else data
        if step == 0:
            check_on_manifold(manifold, references)
        batch = Batch(x, references, x, itself, step, step / steps)
        move, _ = cap_step(manifold, x, step_size * field(batch).field, max_step)
        observe(field, batch)
        x = manifold.expmap(x, move)
        if not bool(x.isfinite().all()):
            raise FloatingPointError(f"step {step}: a particle is not finite; try a smaller step_size")
        if step + 1 in record:
            records[step + 1] = x
    return Flow(x, records)


def _drawn(sampler: DataSampler, x: Tensor, generator: torch.Generator) -> Tensor:
    """Data of a step as the particles are; tokens and indices stay integers."""
    data = sampler(len(x), generator)
    return data.to(x) if data.is_floating_point() else data.to(x.device)
