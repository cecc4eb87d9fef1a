"""The drift field of short windows of sequences, each at its position."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from drift_core import Batch, Drift, Field, Manifold
from drift_core.field import diagnostics, observe, observes, separable
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class WindowField:
    """Field whose drift at each position is the mean over the windows that cover it.

    Windows start every half of their width, so that every two adjacent positions share one, and the last one
    ends where the sequence ends. Samples are points [n, length, K], data tokens [m, length]. It is the sum of
    the pullbacks (`drift_core.PullbackField`) along slices, divided by the number of windows at a position.

    Long sequences are far apart: hardly any data point is near a sample, and the nearest attract wrong
    positions as much as right ones. Windows of a few tokens recur, and an error in one does not affect the
    others.

    Raises ValueError for a width below 2.
    """

    field: Field
    """The drift field of one window, on tokens."""
    length: int
    """Positions L of a sequence."""
    width: int
    """Positions of a window; of shorter sequences all."""

    def __post_init__(self) -> None:
        if self.width < 2:
            raise ValueError(f"windows must have at least 2 positions, got {self.width}")

    @property
    def manifold(self) -> Manifold:
        """The geometry of the samples."""
        return self.field.manifold

    @cached_property
    def slices(self) -> list[slice]:
        """The windows, by their positions."""
        width = min(self.width, self.length)
        starts = [*range(0, self.length - width, max(1, width // 2)), self.length - width]
        return [slice(start, start + width) for start in starts]

    def __call__(self, batch: Batch) -> Drift:
        """Mean drift of the windows at each position."""
        sums = Drift(torch.zeros_like(batch.x), torch.zeros_like(batch.x))
        for window, part in self._parts(batch):
            for total, drift in zip(sums, self.field(part), strict=True):
                total[:, window] += drift
        return Drift(*(total / self._cover.to(total) for total in sums))

    def separable(self, batch: Batch) -> bool:
        """Whether the field of a window is."""
        return separable(self.field, batch)

    @property
    def observes(self) -> bool:
        """Whether the field of a window observes batches."""
        return observes(self.field)

    def observe(self, batch: Batch) -> None:
        """Let the field observe every window."""
        for _, part in self._parts(batch):
            observe(self.field, part)

    def diagnostics(self, batch: Batch) -> dict[str, float]:
        """Diagnostics averaged over the windows."""
        found = [diagnostics(self.field, part) for _, part in self._parts(batch)]
        return {name: sum(part[name] for part in found) / len(found) for name in found[0]}

    @cached_property
    def _cover(self) -> Float[Tensor, "length 1"]:
        """Number of windows at each position."""
        count = torch.zeros(self.length, 1)
        for window in self.slices:
            count[window] += 1
        return count

    def _parts(self, batch: Batch) -> Iterator[tuple[slice, Batch]]:
        """The batch in each window."""
        whole, (model, _) = batch.head(len(batch.x)), batch.negatives()
        for window in self.slices:
            x, data, repelling = (cloud[:, window].contiguous() for cloud in (batch.x, batch.data, model))
            yield window, replace(whole, x=x, data=data, model=repelling)
