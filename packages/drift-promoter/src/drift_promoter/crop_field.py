"""Drift field of crops, attracted to sampled crops of the data, given the signal around them."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple

import torch
from drift_core import Batch, Drift, Manifold
from drift_core.seeds import generator_for
from drift_simplex import CategoricalField, decode, sample_tokens
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from drift_promoter.crops import Crops
from drift_promoter.data import Windows
from drift_promoter.model import Decoding
from drift_promoter.similarity import REACH, Similarity, local_features

_PAIRS = 2**23
"""Pairs of crops whose similarity is held at once; memory is linear in the batch."""
_TOKENS = 5
"""Random stream of sampled tokens."""


class _CropBatch(NamedTuple):
    """Crops of samples or of data."""

    letters: Tensor
    """Points [m, w, 4], or tokens [m, w]."""
    features: Tensor | None
    """Features of the signal around each, [m, f]."""
    sample: Tensor | None
    """Number of the sample that each comes from, [m]: crops of one sample do not repel one another."""

    def at(self, rows: slice) -> "_CropBatch":
        """Some of the crops."""
        features = None if self.features is None else self.features[rows]
        sample = None if self.sample is None else self.sample[rows]
        return _CropBatch(self.letters[rows], features, sample)


@dataclass(frozen=True)
class CropField:
    """Drift field of crops; its data are crop indices (`crop_indices`).

    Crops recur where whole sequences have no near neighbours. The field of a sequence is the mean, at each
    position, of the fields of the crops that cover it. Each is attracted to crops of the data, and repelled
    by crops of the other samples as tokens. References count by the similarity of the signal around them;
    without `similarity` all count alike.

    Raises ValueError for a width that is not between 2 and the length of the windows.
    """

    field: CategoricalField
    data: Windows
    similarity: Similarity | None
    width: int = 8
    """Base pairs of a crop."""
    decoding: Decoding = "argmax"
    """Tokens of a sample: the most likely, or "sampled" from the distributions that its points are."""
    max_negatives: int = 16_384
    """Crops of the model, evenly spread over its samples, that repel."""
    seed: int = 0
    """Seed of the sampled tokens, which are the same for the same step."""

    def __post_init__(self) -> None:
        _ = self.crops  # refuses a width

    @cached_property
    def crops(self) -> Crops:
        """Where crops start."""
        return Crops(self.data.length, self.width)

    data_device: ClassVar[torch.device] = torch.device("cpu")
    """Windows are mapped into memory, and read there."""

    @property
    def manifold(self) -> Manifold:
        """The geometry of the sequences."""
        return self.field.manifold

    def __call__(self, batch: Batch) -> Drift:
        """Attraction to crops of the data, and repulsion from those of the model, given the signals."""
        x, (model, own) = batch.x, batch.negatives()
        there = batch.condition if batch.model is None else batch.model_condition
        samples = None if own is None else own.repeat_interleave(len(self.crops))
        queries = _CropBatch(self.crops.cut(x), self._features(batch.condition), samples)
        negatives = self._negatives(model, there, batch.step)
        return Drift(
            self._attraction(queries, self._positives(batch), batch.progress),
            self._attraction(queries, negatives, batch.progress),
        )

    def diagnostics(self, batch: Batch) -> dict[str, float]:
        """Mean effective number of crops of the data per crop of the first samples (ess)."""
        few = max(1, _PAIRS // (len(batch.data) * len(self.crops))) * len(self.crops)
        queries = _CropBatch(self.crops.cut(batch.x), self._features(batch.condition), None).at(slice(few))
        positives = self._positives(batch)
        weight = self._log_weight(queries, positives)
        return self.field.diagnostics(
            Batch(queries.letters, positives.letters, progress=batch.progress, data_log_weight=weight)
        )

    def _attraction(
        self, queries: _CropBatch, references: _CropBatch, progress: float
    ) -> Float[Tensor, "n L 4"]:
        """Mean at each position of the attractions of the crops that cover it."""
        block = max(1, _PAIRS // max(1, len(references.letters)))
        parts = []
        for low in range(0, max(1, len(queries.letters)), block):
            some = queries.at(slice(low, low + block))
            weight = self._log_weight(some, references)
            parts.append(
                self.field.attraction_to_tokens(some.letters, references.letters, progress, log_weight=weight)
            )
        return self.crops.join(torch.cat(parts))

    def _log_weight(self, queries: _CropBatch, references: _CropBatch) -> Tensor | None:
        """Log-similarity of the signals around all pairs; -inf for pairs of one sample."""
        near = None
        if queries.features is not None and references.features is not None and self.similarity is not None:
            near = self.similarity.log(queries.features, references.features)
        if queries.sample is None or references.sample is None:
            return near
        near = queries.letters.new_zeros(()) if near is None else near
        return torch.where(queries.sample[:, None] == references.sample, -torch.inf, near)

    def _features(self, signal: Float[Tensor, "n L tracks"] | None) -> Float[Tensor, "nS f"] | None:
        """Features of the signal around every crop of samples, if signals are compared."""
        if signal is None or self.similarity is None:
            return None
        return local_features(self.crops.cut(signal, REACH))

    def _positives(self, batch: Batch) -> _CropBatch:
        """Crops of the data at the batch's indices, which are read where the windows are."""
        row, shift, start = batch.data.cpu().unbind(1)  # where training leaves them
        positions = start[:, None] + torch.arange(self.width)
        tokens = self.data.tokens(row, shift).gather(1, positions).to(batch.x.device)
        if batch.condition is None or self.similarity is None:
            return _CropBatch(tokens, None, None)
        signal = F.pad(self.data.signals(row, shift), (0, 0, REACH, REACH))
        positions = start[:, None] + torch.arange(self.width + 2 * REACH)
        around = signal.gather(1, positions[..., None].expand(-1, -1, signal.shape[2]))
        return _CropBatch(tokens, local_features(around.to(batch.condition)), None)

    def _negatives(self, model: Float[Tensor, "k L 4"], signal: Tensor | None, step: int) -> _CropBatch:
        """Crops of the model as tokens, at most `max_negatives`."""
        count = len(self.crops)
        every = math.ceil(len(model) * count / self.max_negatives)
        while math.gcd(every, count) > 1:  # else some positions would never repel
            every += 1
        tokens = self._read(model, step)[:, self.crops.indices(device=model.device)].flatten(0, 1)
        sample = torch.arange(len(model), device=model.device).repeat_interleave(count)
        return _CropBatch(tokens, self._features(signal), sample).at(slice(None, None, every))

    def _read(self, model: Float[Tensor, "k L 4"], step: int) -> Int64[Tensor, "k L"]:
        """Tokens of samples."""
        if self.decoding == "argmax":
            return decode(model)
        return sample_tokens(model, generator_for(self.seed, step, _TOKENS))
