"""Networks: MLPs, micro-batches, moving averages, and a context for evaluation mode."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from itertools import pairwise
from typing import Generic, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

M = TypeVar("M", bound=nn.Module)

_SILU_GAIN = 1.79
"""Inverse of the standard deviation of SiLU of a standard normal number."""


def plain_mlp(inputs: int, width: int, layers: int, outputs: int) -> nn.Sequential:
    """MLP with SiLU, whose untrained outputs have unit variance for standard normal inputs.

    The generator of continuous data in the published setting: Gaussian latents, no codebook.
    """
    sizes = [inputs, *[width] * layers]
    hidden = [nn.Linear(*pair) for pair in pairwise(sizes)]
    last = nn.Linear(sizes[-1], outputs, bias=False)
    with torch.no_grad():
        for layer in (*hidden, last):
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
            if layer is not hidden[0]:  # SiLU's nonzero mean would give all points the same direction
                layer.weight.sub_(layer.weight.mean(1, keepdim=True)).mul_(_SILU_GAIN)
        for layer in hidden:
            nn.init.zeros_(layer.bias)
    return nn.Sequential(*(part for layer in hidden for part in (layer, nn.SiLU())), last)


class ResidualBlock(nn.Module):
    """Pre-norm residual block h + W2 silu(W1 layernorm(h)), initially the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.inner = nn.Linear(width, width)
        self.outer = nn.Linear(width, width)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, h: Float[Tensor, "n width"]) -> Float[Tensor, "n width"]:
        """Hidden states after this block."""
        update: Tensor = self.outer(nn.functional.silu(self.inner(self.norm(h))))
        return h + update


def residual_mlp(width: int, blocks: int, outputs: int, *, bias: bool = True) -> nn.Sequential:
    """Residual blocks, a layer norm and a linear layer, for inputs [n, width]."""
    layers = [ResidualBlock(width) for _ in range(blocks)]
    return nn.Sequential(*layers, nn.LayerNorm(width), nn.Linear(width, outputs, bias=bias))


def in_batches(
    function: Callable[..., Tensor], *inputs: Tensor, batch_size: int, device: torch.device
) -> Tensor:
    """Apply a function to batches of rows on a device; the joined results are on the CPU.

    `batch_size` bounds memory.
    """
    batches = zip(*(torch.split(rows, batch_size) for rows in inputs), strict=True)
    return torch.cat([function(*(rows.to(device) for rows in batch)).cpu() for batch in batches])


class MicroBatches(nn.Module):
    """A network applied to `size` rows at a time; backward repeats their forward passes, one by one.

    Memory is that of `size` rows and of all outputs; outputs and gradients are those of the whole batch,
    to rounding (gradient checkpointing, Chen et al. 2016, arXiv 1604.06174, along the batch).
    Size None: all rows at once.
    """

    def __init__(self, module: nn.Module, size: int | None) -> None:
        super().__init__()
        self.module = module
        self.size = size

    def forward(self, *inputs: Tensor) -> Tensor:
        """Outputs [n, ...] for inputs [n, ...], in float32 at least."""
        if self.size is not None and self.size < len(inputs[0]):
            rows = zip(*(torch.split(part, self.size) for part in inputs), strict=True)
            x = torch.cat([checkpoint(self.module, *some, use_reentrant=False) for some in rows])
        else:
            x = self.module(*inputs)
        return x.to(torch.promote_types(x.dtype, torch.float32))


class MovingAverage(Generic[M]):
    """The moving average of the weights and buffers of a module.

    Parameters are listed once: to search the submodules for them takes longer than to average them.
    """

    def __init__(self, module: M) -> None:
        self.module, self._source = deepcopy(module), module
        self._averages: list[Tensor] = list(self.module.parameters())
        self._weights: list[Tensor] = list(module.parameters())
        self._has_buffers = next(module.buffers(), None) is not None

    @torch.no_grad()
    def update(self, fraction: float) -> None:
        """Move a fraction of the way to the module as it is now; integers, such as counters, are copied."""
        torch._foreach_lerp_(self._averages, self._weights, fraction)
        if self._has_buffers:
            for old, new in zip(self.module.buffers(), self._source.buffers(), strict=True):
                old.lerp_(new, fraction) if old.is_floating_point() else old.copy_(new)


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode within the context; afterwards every submodule has its previous mode."""
    training = [part for part in network.modules() if part.training]
    network.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True
