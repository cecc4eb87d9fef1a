"""Samplers of places in the data, and of signals, for `drift_core.train`."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int64
from torch import Generator, Tensor

from drift_promoter.data import Windows


def draw_places(data: Windows, stretch: int) -> Callable[[int, Generator], Int64[Tensor, "m 3"]]:
    """Sampler of places in the data, for `train`: window, how far it is shifted, where a stretch starts.

    Windows are drawn uniformly, without repetition where there are enough of them.
    """

    def draw(n: int, generator: Generator) -> Tensor:
        rows = torch.cat([torch.randperm(len(data), generator=generator) for _ in range(-(-n // len(data)))])
        shift = torch.randint(-data.margin, data.margin + 1, (n,), generator=generator)
        start = torch.randint(data.length - stretch + 1, (n,), generator=generator)
        return torch.stack([rows[:n], shift, start], dim=1)

    return draw


def draw_signals(data: Windows) -> Callable[[int, Generator], Float[Tensor, "n length tracks"]]:
    """Sampler of training signals, the conditions of `train`, shifted as the windows are."""
    places = draw_places(data, data.length)

    def draw(n: int, generator: Generator) -> Tensor:
        row, shift, _ = places(n, generator).unbind(1)
        return data.signals(row, shift)

    return draw
