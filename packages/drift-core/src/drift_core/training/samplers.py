"""Samplers of finite data sets."""

from collections.abc import Callable

import torch
from torch import Tensor

Sampler = Callable[[int, torch.Generator], Tensor]
"""Maps (n, random generator) to n rows on the CPU: data points, tokens or conditions."""


def resample(data: Tensor) -> Sampler:
    """Sampler of a finite data set: n distinct rows at a time, or all rows if there are at most n."""

    def draw(n: int, generator: torch.Generator) -> Tensor:
        return data if n >= len(data) else data[_distinct(len(data), n, generator)]

    return draw


def in_runs(data: Tensor, length: int) -> Sampler:
    """Sampler of conditions: n rows in runs of `length` equal ones, whose samples repel one another.

    Runs are of distinct rows, or drawn with replacement from fewer rows than runs. Raises ValueError for a
    length below 1.
    """
    if length < 1:
        raise ValueError(f"the length of runs must be at least 1, got {length}")

    def draw(n: int, generator: torch.Generator) -> Tensor:
        number, size = -(-n // length), len(data)
        if number > size:
            rows = torch.randint(size, (number,), generator=generator)
        else:
            rows = _distinct(size, number, generator)
        return data[rows].repeat_interleave(length, 0)[:n]

    return draw


class Matched:
    """Sampler of data that have the conditions of a step's samples, in the same proportions.

    Called as any `Sampler` it draws from all data, as `resample` does. A drift problem per condition needs
    data of each, of which a random draw of a large data set has few.

    Args:
        data: data points, or tokens, [m, ...].
        conditions: their conditions, labels [m] or rows of integers [m, k].

    Raises ValueError unless there are as many conditions as data.
    """

    def __init__(self, data: Tensor, conditions: Tensor) -> None:
        if len(conditions) != len(data):
            raise ValueError(f"{len(data)} data need as many conditions, got {len(conditions)}")
        self.data = data
        self.distinct, which = torch.unique(_as_rows(conditions), dim=0, return_inverse=True)
        self.order, self.sizes = which.argsort(stable=True), which.bincount()
        self.starts = self.sizes.cumsum(0) - self.sizes

    def __call__(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw n distinct rows, or all rows if there are at most n."""
        return resample(self.data)(n, generator)

    def matching(self, conditions: Tensor, n: int, generator: torch.Generator) -> Tensor:
        """Draw n rows of data, with replacement, for samples with these conditions [s] or [s, k].

        Raises ValueError for a condition that no data have.
        """
        equal = (_as_rows(conditions.cpu())[:, None] == self.distinct).all(2)
        if not bool(equal.any(1).all()):
            raise ValueError("the samples have a condition that no data have")
        which = equal.int().argmax(1)[torch.arange(n) * len(equal) // n]
        place = (torch.rand(n, generator=generator, dtype=torch.float64) * self.sizes[which]).long()
        return self.data[self.order[self.starts[which] + place]]


def _as_rows(conditions: Tensor) -> Tensor:
    return conditions.reshape(len(conditions), -1)


def _distinct(size: int, n: int, generator: torch.Generator) -> Tensor:
    return torch.randperm(size, generator=generator)[:n]
