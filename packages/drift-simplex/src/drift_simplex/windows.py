"""The drift field of short windows of sequences, each at its place."""

from dataclasses import dataclass

import torch
from drift_core import DriftTerms, Manifold
from jaxtyping import Float, Integer
from torch import Tensor

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

    def terms(
        self,
        x: Float[Tensor, "n L K"],
        data: Integer[Tensor, "m L"],
        model: Float[Tensor, "k L K"],
        self_index: Integer[Tensor, " n"] | None,
        progress: float = 1.0,
    ) -> DriftTerms:
        """Attraction and repulsion at x when the fraction `progress` of training is over."""
        sums, cover = DriftTerms(torch.zeros_like(x), torch.zeros_like(x)), x.new_zeros(x.shape[1], 1)
        for at in self.windows(x.shape[1]):
            parts = self.field.terms(x[:, at], data[:, at], model[:, at], self_index, progress)
            for total, part in zip(sums, parts, strict=True):
                total[:, at] += part
            cover[at] += 1
        return DriftTerms(*(total / cover for total in sums))

    def effective_samples(
        self, x: Float[Tensor, "n L K"], data: Integer[Tensor, "m L"], progress: float = 1.0
    ) -> float:
        """Mean effective number of data per window, at the smallest lengthscale."""
        windows = self.windows(x.shape[1])
        sizes = [self.field.effective_samples(x[:, at], data[:, at], progress) for at in windows]
        return sum(sizes) / len(sizes)
