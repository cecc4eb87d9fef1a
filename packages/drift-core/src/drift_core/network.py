"""What the loop does with a network: apply it to a batch in parts, switch dropout off for a while."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


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
