"""The drift field of short windows of sequences, each at its place."""

from dataclasses import dataclass, replace
from statistics import fmean

import torch
from drift_core import Batch, Drift, Manifold

from drift_simplex.field import CategoricalField


@dataclass(frozen=True)
class WindowField:
    """Mean drift of the windows that cover a position, each among windows at the same place.

    Long sequences are far from one another: hardly any datum is near a sample, and those that are nearest
    pull where they are wrong as where they are right. Windows of a few letters recur, and what is wrong in
    one says nothing about another. They start every half of their width, so that every pair of neighbours
    lies within one.
    """

    field: CategoricalField
    """Of the windows."""
    width: int
    """Positions of a window."""

    def __post_init__(self) -> None:
        if self.width < 2:
            raise ValueError(f"windows must have at least 2 positions, got {self.width}")

    @property
    def manifold(self) -> Manifold:
        """The geometry of the sequences."""
        return self.field.manifold

    def windows(self, length: int) -> list[slice]:
        """Where the windows of a sequence lie; the last one ends where it ends."""
        width = min(self.width, length)
        starts = [*range(0, length - width, max(1, width // 2)), length - width]
        return [slice(start, start + width) for start in starts]

    def __call__(self, batch: Batch) -> Drift:
        """Attraction and repulsion, each the mean over the windows that cover a position."""
        x = batch.x
        sums, cover = Drift(torch.zeros_like(x), torch.zeros_like(x)), x.new_zeros(x.shape[1], 1)
        for at in self.windows(x.shape[1]):
            for total, part in zip(sums, self.field(_cut(batch, at)), strict=True):
                total[:, at] += part
            cover[at] += 1
        return Drift(*(total / cover for total in sums))

    def diagnostics(self, batch: Batch) -> dict[str, float]:
        """Those of the field, as means over the windows."""
        windows = self.windows(batch.x.shape[1])
        found = [self.field.diagnostics(_cut(batch, at)) for at in windows]
        return {name: fmean(part[name] for part in found) for name in found[0]}


def _cut(batch: Batch, at: slice) -> Batch:
    """The batch of the windows at one place."""
    model, own = batch.negatives()
    return replace(batch, x=batch.x[:, at], data=batch.data[:, at], model=model[:, at], self_index=own)
