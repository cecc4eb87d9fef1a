"""Networks: the plain MLP of noise, a network applied in parts, dropout switched off for a while."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

_SILU_GAIN = 1.79
"""Inverse of the standard deviation of SiLU of a standard normal number."""


def plain_mlp(inputs: int, width: int, layers: int, outputs: int) -> nn.Sequential:
    """Hidden layers with SiLU, then a linear one; of normal inputs the outputs have unit variance at first.

    The generator of continuous data in the published setting: noise in, a point out, no codebook.
    """
    sizes = [inputs, *[width] * layers]
    hidden = [nn.Linear(*pair) for pair in pairwise(sizes)]
    last = nn.Linear(sizes[-1], outputs, bias=False)
    with torch.no_grad():
        for layer in (*hidden, last):
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
            if layer is not hidden[0]:  # SiLU's mean is not 0, and would give all points one direction
                layer.weight.sub_(layer.weight.mean(1, keepdim=True)).mul_(_SILU_GAIN)
        for layer in hidden:
            nn.init.zeros_(layer.bias)
    return nn.Sequential(*(part for layer in hidden for part in (layer, nn.SiLU())), last)


class MicroBatches(nn.Module):
    """A network applied to `size` rows at a time; backward repeats their forward passes, one by one.

    Memory is that of `size` rows and of all outputs; outputs and gradients are those of the whole batch,
    to rounding (gradient checkpointing, Chen et al. 2016, arXiv 1604.06174, along the batch). Size 0 stands
    for all rows.
    """

    def __init__(self, module: nn.Module, size: int) -> None:
        super().__init__()
        self.module = module
        self.size = size

    def forward(self, *inputs: Tensor) -> Tensor:
        """Outputs [n, ...] for inputs [n, ...], in float32 at least."""
        if 0 < self.size < len(inputs[0]):
            rows = zip(*(torch.split(part, self.size) for part in inputs), strict=True)
            x = torch.cat([checkpoint(self.module, *some, use_reentrant=False) for some in rows])
        else:
            x = self.module(*inputs)
        return x.to(torch.promote_types(x.dtype, torch.float32))


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode within the context; afterwards every part is in the mode that it was in."""
    training = [part for part in network.modules() if part.training]
    network.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True
