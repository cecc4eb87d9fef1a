"""Drift field of crops, attracted to all k-mers of the data by their counts."""

import math
from collections.abc import Iterator

import torch
from drift_core import Batch, Drift, Manifold
from drift_core.seeds import generator_for
from drift_simplex import CategoricalField, sample_tokens
from drift_simplex.kmers import MAX_KMERS
from einops import rearrange
from jaxtyping import Float, Float64, Int64, Shaped
from torch import Tensor, nn
from tqdm.auto import tqdm

from drift_promoter.bases import VOCABULARY
from drift_promoter.clusters import ConditionClusters
from drift_promoter.crops import Crops
from drift_promoter.data import Windows
from drift_promoter.metrics import kmer_codes

LONGEST_KMER = math.floor(math.log(MAX_KMERS, len(VOCABULARY)) + 1e-9)
"""Base pairs of the longest crops whose k-mers a table holds."""

_WINDOWS = 2048
"""Windows whose k-mers are counted at once."""
_SEQUENCES = 4
"""Sequences that are sampled from each of the model's."""
_OTHERS = 1e-3
"""Weight of the k-mers of other clusters, so that a cluster that is rare in a batch is not alone."""
_TOKENS = 5
"""Random stream of sampled tokens."""


class KmerField(nn.Module):
    """Drift field of crops; all k-mers of all training windows attract, at every step.

    The field of a sequence is the mean, at each position, of the fields of the crops that cover it. The data
    are counted once in a table, so that `batch.data` is not used. A sample is a distribution of sequences: a
    few are sampled, and their crops are counted in the same way and repel, each crop excluded from its own.
    Both terms of the drift then see vertices alone, and cancel where samples are as the data.

    With `clusters` there is a table for each cluster of conditions, in which the k-mers of other clusters
    count a thousandth. Without, conditions are ignored.

    Raises ValueError for a width that no table holds, or clusters of other crops.
    """

    counts: Float64[Tensor, "clusters kmers"]
    """How often each k-mer of the data occurs, for each cluster."""

    def __init__(
        self,
        field: CategoricalField,
        data: Windows,
        clusters: ConditionClusters | None = None,
        width: int = 8,
        seed: int = 0,
    ) -> None:
        """`seed` is that of the sampled sequences, which are the same for the same step."""
        super().__init__()
        self.crops, self.field, self.seed, self.clusters = Crops(data.length, width), field, seed, clusters
        if width > LONGEST_KMER:
            raise ValueError(f"counted crops must have 2 to {LONGEST_KMER} base pairs, got {width}")
        if clusters is not None and clusters.crops != self.crops:
            raise ValueError(f"expected clusters of {self.crops}, got those of {clusters.crops}")
        self.register_buffer("counts", count_kmers(data, self.crops, clusters), persistent=False)

    @property
    def manifold(self) -> Manifold:
        """The geometry of the sequences."""
        return self.field.manifold

    def __call__(self, batch: Batch) -> Drift:
        """Attraction to the k-mers of the data, and repulsion from those of the model, given conditions."""
        x, (model, own) = batch.x, batch.negatives()
        there = batch.condition if batch.model is None else batch.model_condition
        queries, here = self.crops.cut(x), self._assign(x, batch.condition)
        attraction = self._attraction(queries, here, self.counts, batch.progress)
        kmers = self._sample(model, batch.step)
        repulsion = self._repulsion(queries, here, kmers, self._assign(model, there), own, batch.progress)
        return Drift(self.crops.join(attraction), self.crops.join(repulsion))

    def diagnostics(self, batch: Batch) -> dict[str, float]:
        """Mean effective number of k-mers of the data per crop (ess)."""
        queries, clusters = self.crops.cut(batch.x), self._assign(batch.x, batch.condition)
        sizes = [
            len(rows) * self.field.effective_kmers(queries[rows], self.counts[cluster], batch.progress)
            for cluster, rows in _groups(clusters)
        ]
        return {"ess": sum(sizes) / max(1, len(queries))}

    def _assign(self, x: Float[Tensor, "n L 4"], condition: Tensor | None) -> Int64[Tensor, " nS"]:
        """Cluster of the condition of each crop; without clusters all are of one."""
        if self.clusters is None:
            return torch.zeros(len(x) * len(self.crops), dtype=torch.long, device=x.device)
        if condition is None:
            raise ValueError("the field has clusters of conditions: the batch needs conditions")
        return self.clusters.assign(condition).flatten()

    def _attraction(
        self,
        queries: Float[Tensor, "nS w 4"],
        clusters: Int64[Tensor, " nS"],
        counts: Shaped[Tensor, "clusters kmers"],
        progress: float,
        own: Int64[Tensor, "nS r w"] | None = None,
    ) -> Float[Tensor, "nS w 4"]:
        """Attraction of each crop to the k-mers that are counted for its cluster, but its own."""
        attraction = torch.empty_like(queries)
        for cluster, rows in _groups(clusters):
            without = None if own is None else own[rows]
            attraction[rows] = self.field.attraction_to_kmers(
                queries[rows], counts[cluster], progress, own=without
            )
        return attraction

    def _repulsion(
        self,
        queries: Float[Tensor, "nS w 4"],
        clusters: Int64[Tensor, " nS"],
        kmers: Int64[Tensor, "r k S w"],
        kmer_clusters: Int64[Tensor, " kS"],
        own: Int64[Tensor, " n"] | None,
        progress: float,
    ) -> Float[Tensor, "nS w 4"]:
        """Attraction of each crop to the sampled k-mers, but those of itself."""
        counts = self._count(kmers, kmer_clusters)
        if own is None:
            return self._attraction(queries, clusters, counts, progress)
        repulsion = torch.empty_like(queries)
        known = (own >= 0) & (own < kmers.shape[1])
        rows = known.repeat_interleave(len(self.crops))
        themselves = rearrange(kmers[:, own[known]], "r n S w -> (n S) r w")
        for some, without in ((rows, themselves), (~rows, None)):
            repulsion[some] = self._attraction(queries[some], clusters[some], counts, progress, without)
        return repulsion

    def _sample(self, model: Float[Tensor, "k L 4"], step: int) -> Int64[Tensor, "r k S w"]:
        """Crops of sequences that are sampled from the distributions that points are."""
        random = generator_for(self.seed, step, _TOKENS)
        tokens = torch.stack([sample_tokens(model, random) for _ in range(_SEQUENCES)])
        return tokens[..., self.crops.indices(device=model.device)]

    def _count(
        self, kmers: Int64[Tensor, "r k S w"], clusters: Int64[Tensor, " kS"]
    ) -> Float64[Tensor, "clusters kmers"]:
        """How often each k-mer was sampled, for each cluster."""
        digit = torch.arange(self.crops.width - 1, -1, -1, device=kmers.device)
        codes = (kmers * len(VOCABULARY) ** digit).sum(-1).flatten(1)
        return _share(_tabulate(codes, clusters, self.counts.shape))


def count_kmers(
    data: Windows, crops: Crops, clusters: ConditionClusters | None = None
) -> Float64[Tensor, "clusters kmers"]:
    """How often each k-mer as long as a crop occurs in the windows, at every position, for each cluster.

    The cluster of a k-mer is that of the last crop that starts where it starts, or before.
    """
    crop = torch.searchsorted(crops.starts(), torch.arange(data.length - crops.width + 1), right=True) - 1
    shape = torch.Size([1 if clusters is None else len(clusters), len(VOCABULARY) ** crops.width])
    counts = torch.zeros(shape, dtype=torch.float64)
    blocks = torch.split(torch.arange(len(data)), _WINDOWS)
    for rows in tqdm(blocks, desc="count k-mers", leave=False, delay=2):
        assigned = crop * 0 if clusters is None else clusters.assign(data.signals(rows))[:, crop]
        counts += _tabulate(kmer_codes(data.tokens(rows), crops.width), assigned, shape)
    return _share(counts)


def _tabulate(
    codes: Int64[Tensor, "..."], clusters: Int64[Tensor, "..."], shape: torch.Size
) -> Int64[Tensor, "clusters kmers"]:
    """How often each k-mer occurs, for each cluster."""
    return (codes + shape[1] * clusters).flatten().bincount(minlength=shape.numel()).view(shape)


def _share(counts: Shaped[Tensor, "clusters kmers"]) -> Float64[Tensor, "clusters kmers"]:
    """Counts of each cluster and, for little, of all others."""
    counts = counts.double()
    return counts + _OTHERS * (counts.sum(0) - counts)


def _groups(clusters: Int64[Tensor, " nS"]) -> Iterator[tuple[int, Int64[Tensor, " rows"]]]:
    """Each cluster that there is with its rows."""
    order = clusters.argsort(stable=True)
    found, sizes = torch.unique(clusters, return_counts=True)
    yield from zip(found.tolist(), torch.split(order, sizes.tolist()), strict=True)
