"""Kinds of signals: a few, so that the words of the data can be counted for each."""

from dataclasses import dataclass
from itertools import pairwise

import torch
from drift_core.seeds import generator_for
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from drift_promoter.data import Windows
from drift_promoter.similarity import REACH

_BINS = (1, 2, 4, 8)
"""Into how many parts the surroundings of a stretch are cut."""
_FITTED = 40_000
"""Stretches of training windows by which the kinds are chosen."""
_WINDOWS = 1_024
"""Windows from which those are drawn."""


@dataclass(frozen=True)
class SignalKinds:
    """The kind of the signal around a stretch: the nearest of a few centres, by its `features`."""

    centres: Float32[Tensor, "kinds f"]
    starts: Int64[Tensor, " S"]
    """Where the stretches of a window start."""
    length: int
    """Base pairs of a stretch."""

    def __len__(self) -> int:
        return len(self.centres)

    def of(self, signal: Float[Tensor, "n L tracks"]) -> Int64[Tensor, "n S"]:
        """Kind of the signal around each stretch of some windows."""
        seen = features(signal, self.starts.to(signal.device), self.length)
        centres = self.centres.to(signal.device)
        # The nearest has the largest <x, c> - |c|^2 / 2: no array of all differences.
        return (seen @ centres.T - centres.square().sum(1) / 2).argmax(-1)


def choose_kinds(
    data: Windows, starts: Int64[Tensor, " S"], length: int, count: int, seed: int
) -> SignalKinds:
    """Kinds of signals around the stretches of the data, by k-means; fewer, if there are fewer signals."""
    from sklearn.cluster import MiniBatchKMeans  # takes seconds to import

    random = generator_for(seed)
    rows = torch.randperm(len(data), generator=random)[:_WINDOWS]
    seen = features(data.signals(rows), starts, length).flatten(0, 1)
    some = seen[torch.randperm(len(seen), generator=random)[:_FITTED]]
    found = MiniBatchKMeans(min(count, len(torch.unique(some, dim=0))), random_state=seed, n_init=1).fit(
        some.numpy()
    )
    return SignalKinds(torch.from_numpy(found.cluster_centers_).float(), starts, length)


def features(
    signal: Float[Tensor, "n L tracks"], starts: Int64[Tensor, " S"], length: int
) -> Float32[Tensor, "n S f"]:
    """Roots of mean signals of all tracks: of the window, and around each stretch in 1, 2, 4 and 8 parts.

    Roots, because signals have heavy tails; the parts of a division count together as much as the whole.
    """
    size = signal.shape[1]
    sums = torch.nn.functional.pad(signal.double().cumsum(1), (0, 0, 1, 0))
    means = [(sums[:, -1:] / size).expand(-1, len(starts), -1)]
    reach = length + 2 * REACH
    for bins in _BINS:
        edges = [(starts - REACH + reach * i // bins).clamp(0, size) for i in range(bins + 1)]
        for low, high in pairwise(edges):
            means.append((sums[:, high] - sums[:, low]) / reach)
    return torch.cat([mean.float().clamp_min(0).sqrt() for mean in means], dim=2)
