"""Layers of the generator: convolutions modulated by a condition, with outputs of a known spread at first."""

from drift_simplex.generator import init_layer
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

TAPS = 9
"""Positions that a convolution sees."""

_MODULATION_STD = 0.5
"""Spread of untrained modulations: they shift the composition of a whole sequence, and few letters do."""


class Block(nn.Module):
    """h + SiLU(conv((1 + scale) * norm(h) + shift)), with a dilated convolution of 9 taps.

    The norm is over all channels and positions of a sequence; shift and scale of each channel are
    linear in a condition vector.
    """

    def __init__(self, width: int, dilation: int, condition: int) -> None:
        super().__init__()
        self.modulation = Modulation(width, condition)
        self.conv = convolution(width, width, dilation)

    def forward(self, h: Float[Tensor, "n width length"], c: Float[Tensor, "n c"]) -> Tensor:
        """Hidden states after this block."""
        return h + F.silu(self.conv(self.modulation(h, c)))


class Modulation(nn.Module):
    """(1 + scale) * norm(h) + shift; the norm has one group, as published."""

    def __init__(self, width: int, condition: int) -> None:
        super().__init__()
        self.linear = init_layer(nn.Linear(condition, 2 * width), std=_MODULATION_STD)

    def forward(self, h: Float[Tensor, "n width length"], c: Float[Tensor, "n c"]) -> Tensor:
        """Modulated hidden states."""
        shift, scale = rearrange(self.linear(c), "n (two d) -> two n d 1", two=2)
        return (1 + scale) * F.group_norm(h, 1) + shift


def convolution(channels: int, width: int, dilation: int = 1) -> nn.Conv1d:
    """Convolution of 9 taps that keeps the length."""
    padding = TAPS // 2 * dilation
    return init_layer(nn.Conv1d(channels, width, TAPS, padding=padding, dilation=dilation))
