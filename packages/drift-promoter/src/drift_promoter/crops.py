"""Crops, which are short windows of sequences: where they start, how to cut, join and sample them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float, Int64
from torch import Generator, Tensor
from torch.nn import functional as F

from drift_promoter.data import Windows


@dataclass(frozen=True)
class Crops:
    """The S crops of a sequence. One starts every half width; the last ends where the sequence ends.

    Any two neighbouring positions then lie in one crop. Indices are made on the device that asks for them.

    Raises ValueError for a width that is not between 2 and the length.
    """

    length: int
    """Base pairs of the sequence."""
    width: int
    """Base pairs of a crop."""

    def __post_init__(self) -> None:
        if not 2 <= self.width <= self.length:
            raise ValueError(f"crops must have 2 to {self.length} base pairs, got {self.width}")

    def __len__(self) -> int:
        return -(-(self.length - self.width) // (self.width // 2)) + 1

    def starts(self, device: torch.device | None = None) -> Int64[Tensor, " S"]:
        """First position of each crop."""
        spaced = torch.arange(len(self), device=device) * (self.width // 2)
        return spaced.clamp_max(self.length - self.width)

    def indices(self, reach: int = 0, device: torch.device | None = None) -> Int64[Tensor, "S w"]:
        """Positions of each crop, and of `reach` more on both sides of it in a sequence padded by `reach`."""
        return self.starts(device)[:, None] + torch.arange(self.width + 2 * reach, device=device)

    def cut(self, x: Float[Tensor, "n L k"], reach: int = 0) -> Float[Tensor, "nS w k"]:
        """All crops of each sequence in turn, with `reach` more positions on both sides, zero outside."""
        return F.pad(x, (0, 0, reach, reach))[:, self.indices(reach, x.device)].flatten(0, 1)

    def join(self, v: Float[Tensor, "nS w k"]) -> Float[Tensor, "n L k"]:
        """Mean at each position over the crops that cover it."""
        positions = self.indices(device=v.device).flatten()
        together = rearrange(v, "(n S) w k -> n (S w) k", S=len(self))
        sums = v.new_zeros(len(together), self.length, v.shape[2]).index_add_(1, positions, together)
        covers = v.new_zeros(self.length).index_add_(0, positions, v.new_ones(len(positions)))
        return sums / covers[:, None]


def crop_indices(data: Windows, width: int) -> Callable[[int, Generator], Int64[Tensor, "m 3"]]:
    """Sampler of crop indices, for `train`: window, how far it is shifted, and where in it the crop starts.

    Windows are drawn uniformly, without repetition where there are enough of them.
    """

    def sample(n: int, generator: Generator) -> Tensor:
        rows = torch.cat([torch.randperm(len(data), generator=generator) for _ in range(-(-n // len(data)))])
        shift = torch.randint(-data.margin, data.margin + 1, (n,), generator=generator)
        start = torch.randint(data.length - width + 1, (n,), generator=generator)
        return torch.stack([rows[:n], shift, start], dim=1)

    return sample


def signal_sampler(data: Windows) -> Callable[[int, Generator], Float[Tensor, "n length tracks"]]:
    """Sampler of training signals, the conditions of `train`, shifted as the windows are."""
    indices = crop_indices(data, data.length)

    def sample(n: int, generator: Generator) -> Tensor:
        row, shift, _ = indices(n, generator).unbind(1)
        return data.signals(row, shift)

    return sample
