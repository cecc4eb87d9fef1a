"""Several generators of one architecture, in one forward pass over their stacked weights."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, vmap

from drift_core.field import Batch
from drift_core.training.learner import Draw, Learner


def forward_together(learners: Sequence[Learner[Any]], draws: Sequence[Draw]) -> list[tuple[Tensor, Batch]]:
    """`Learner.forward` of each learner; several of them in one pass, whose gradients each module receives.

    All networks together then take as many operations as one.
    """
    if len(learners) == 1:
        return [learners[0].forward(draws[0])]
    negatives = [learner.negatives(draw) for learner, draw in zip(learners, draws, strict=True)]
    inputs = [learner.own(draw) for learner, draw in zip(learners, draws, strict=True)]
    modules = [learner.network for learner in learners]
    weights = [dict(module.named_parameters()) | dict(module.named_buffers()) for module in modules]

    def call(weights: dict[str, Tensor], *inputs: Tensor) -> Tensor:
        x: Tensor = functional_call(modules[0], weights, inputs)
        return x

    stacked = {name: torch.stack([own[name] for own in weights]) for name in weights[0]}
    samples = vmap(call)(stacked, *map(torch.stack, zip(*inputs, strict=True)))
    rows = zip(learners, draws, samples, negatives, strict=True)
    return [(x, learner.batch(draw, x, repelling)) for learner, draw, x, repelling in rows]


def check_stackable(learners: Sequence[Learner[Any]]) -> None:
    """Raise ValueError unless the generators can be trained together."""
    if len(learners) == 1:
        return
    shapes = [{k: value.shape for k, value in learner.module.state_dict().items()} for learner in learners]
    if any(other != shapes[0] for other in shapes):
        raise ValueError("generators that are trained together must have one architecture")
    for name in ("steps", "batch_size"):
        values = {learner.config.flat()[name] for learner in learners}
        if len(values) > 1:
            raise ValueError(f"generators that are trained together must have one `{name}`, got {values}")
    if any(learner.config.batch.micro_batch_size for learner in learners):
        raise ValueError("`micro_batch_size` is for one generator; leave it out to train several together")
    if learners[0].accelerator.num_processes > 1:
        raise ValueError("several generators are trained together in one process only")
