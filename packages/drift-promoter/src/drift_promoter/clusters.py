"""Clusters of conditions: a few, so that the k-mers of the data can be counted for each."""

from itertools import pairwise

import torch
from drift_core.seeds import generator_for
from jaxtyping import Float, Float32, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from drift_promoter.crops import Crops
from drift_promoter.data import Windows
from drift_promoter.similarity import REACH

_BINS = (1, 2, 4, 8)
"""Into how many parts the surroundings of a crop are cut."""
FEATURES = 1 + sum(_BINS)
"""Features of a track."""
_FITTED = 40_000
"""Crops of training windows to which the clusters are fitted."""
_WINDOWS = 1_024
"""Windows from which those are sampled."""


class ConditionClusters(nn.Module):
    """Clusters of the signals around crops, by the nearest centre of their `multiscale_features`."""

    centres: Float32[Tensor, "clusters f"]
    """Means of the clusters."""

    def __init__(
        self, centres: Float32[Tensor, "clusters f"], crops: Crops, *, persistent: bool = False
    ) -> None:
        """`persistent`: whether the centres are saved with the state of a module."""
        super().__init__()
        self.crops = crops
        self.register_buffer("centres", centres, persistent=persistent)

    def __len__(self) -> int:
        return len(self.centres)

    def assign(
        self, signal: Float[Tensor, "n L tracks"], starts: Int64[Tensor, " S"] | None = None
    ) -> Int64[Tensor, "n S"]:
        """Cluster of the signal around crops that start at `starts`, by default all of them."""
        if starts is None:
            starts = self.crops.starts(signal.device)
        seen = multiscale_features(signal, starts, self.crops.width)
        # The nearest has the largest <x, c> - |c|^2 / 2: no array of all differences.
        return (seen @ self.centres.T - self.centres.square().sum(1) / 2).argmax(-1)


def fit_clusters(data: Windows, crops: Crops, count: int, seed: int) -> ConditionClusters:
    """Fit clusters to the signals around crops of the data, by k-means; fewer if there are fewer signals."""
    from sklearn.cluster import MiniBatchKMeans  # takes seconds to import

    random = generator_for(seed)
    rows = torch.randperm(len(data), generator=random)[:_WINDOWS]
    seen = multiscale_features(data.signals(rows), crops.starts(), crops.width).flatten(0, 1)
    some = seen[torch.randperm(len(seen), generator=random)[:_FITTED]]
    distinct = len(torch.unique(some, dim=0))
    fitted = MiniBatchKMeans(min(count, distinct), random_state=seed, n_init=1).fit(some.numpy())
    return ConditionClusters(torch.from_numpy(fitted.cluster_centers_).float(), crops)


def multiscale_features(
    signal: Float[Tensor, "n L tracks"], starts: Int64[Tensor, " S"], width: int
) -> Float32[Tensor, "n S f"]:
    """Roots of mean signals of all tracks: of the window, and around each crop in 1, 2, 4 and 8 parts.

    Roots, because signals have heavy tails; the parts of a division count together as much as the whole.
    """
    size = signal.shape[1]
    sums = F.pad(signal.double().cumsum(1), (0, 0, 1, 0))
    means = [(sums[:, -1:] / size).expand(-1, len(starts), -1)]
    reach = width + 2 * REACH
    for bins in _BINS:
        edges = [(starts - REACH + reach * i // bins).clamp(0, size) for i in range(bins + 1)]
        for low, high in pairwise(edges):
            means.append((sums[:, high] - sums[:, low]) / reach)
    return torch.cat([mean.float().clamp_min(0).sqrt() for mean in means], dim=2)
