"""The drift field of promoters' short stretches, given the signal."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from drift_core import DriftTerms, Manifold
from drift_simplex import CategoricalField, FisherRao, decode
from einops import rearrange
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from drift_promoter.data import TRACKS, Windows
from drift_promoter.similarity import REACH, Similarity, local_features

_PAIRS = 2**23
"""Pairs of stretches whose similarity is held at once; memory is linear in the batch."""


class _Stretches(NamedTuple):
    """Stretches of samples or of data."""

    letters: Tensor
    """Points [m, w, 4] of stretches that drift, tokens [m, w] of those that attract or repel."""
    around: Tensor | None
    """Features of the signal around each."""
    sample: Tensor | None
    """Number of the sample that each is of."""

    def at(self, rows: slice) -> "_Stretches":
        around = None if self.around is None else self.around[rows]
        sample = None if self.sample is None else self.sample[rows]
        return _Stretches(self.letters[rows], around, sample)


@dataclass(frozen=True)
class StretchField:
    """Drift field of all stretches of a length, wherever they lie; a `ConditionalField` of places.

    Sequences of a thousand letters are all about equally far from one another, and no training set holds
    two neighbours; stretches of eight recur about a thousand times. The field of a sequence is the mean,
    at each position, of the fields of the stretches that cover it, each against stretches of the data and
    of the other samples. References count by the similarity of the signal around them; without
    `similarity`, all count alike.

    Samples repel as the letters that they decode to, with which they are compared in the end, and which
    cost a lookup a letter, so that thousands of stretches can repel. A sample's own stretches do not
    repel it, any of them: what they have in common, such as their GC content, would drive the sample away
    from itself, though p = q.

    Stretches start every half of their length, so that every pair of neighbours lies within one.
    """

    field: CategoricalField
    data: Windows
    similarity: Similarity | None
    length: int = 8
    most_repelling: int = 16_384
    """Stretches of the model, evenly spread over its samples, that repel."""

    def __post_init__(self) -> None:
        if not 2 <= self.length <= self.data.length:
            raise ValueError(f"stretches must have 2 to {self.data.length} base pairs, got {self.length}")

    @property
    def manifold(self) -> Manifold:
        """The geometry of the sequences."""
        return FisherRao()

    @cached_property
    def starts(self) -> Int64[Tensor, " S"]:
        """Where the stretches of a sample start; the last one ends where it ends."""
        last = self.data.length - self.length
        starts = torch.arange(0, last + 1, self.length // 2)
        return starts if starts[-1] == last else torch.cat([starts, torch.tensor([last])])

    def terms(
        self,
        x: Float[Tensor, "n L 4"],
        data: Int64[Tensor, "m 3"],
        model: Float[Tensor, "k L 4"],
        self_index: Int64[Tensor, " n"] | None,
        progress: float = 1.0,
        *,
        condition: Float[Tensor, "n L tracks"] | None = None,
        model_condition: Float[Tensor, "k L tracks"] | None = None,
    ) -> DriftTerms:
        """Attraction to stretches of the data, and repulsion from stretches of the model.

        `self_index` is for each row of x the row of the model that it is, and whose stretches do not repel
        it; None, or an index outside 0..k-1, excludes nothing.
        """
        queries = _Stretches(self._cut(x), self._around(condition), self._each(self_index))
        attracting = self._attracting(data, condition)
        repelling = self._repelling(model, model_condition)
        return DriftTerms(*(self._towards(queries, some, progress) for some in (attracting, repelling)))

    def effective_samples(
        self,
        x: Float[Tensor, "n L 4"],
        data: Int64[Tensor, "m 3"],
        progress: float = 1.0,
        *,
        condition: Float[Tensor, "n L tracks"] | None = None,
    ) -> float:
        """Mean effective number of stretches of the data per stretch of the first samples."""
        few = max(1, _PAIRS // (len(data) * len(self.starts)))
        queries = _Stretches(self._cut(x), self._around(condition), None).at(slice(few * len(self.starts)))
        references = self._attracting(data, condition)
        weight = self._log_weight(queries, references)
        return self.field.effective_samples(
            queries.letters, references.letters, progress, data_log_weight=weight
        )

    def _towards(self, queries: _Stretches, references: _Stretches, progress: float) -> Tensor:
        """Mean at each position of the pulls of references on the stretches that cover it."""
        block = max(1, _PAIRS // max(1, len(references.letters)))
        parts = []
        for low in range(0, max(1, len(queries.letters)), block):
            some = queries.at(slice(low, low + block))
            weight = self._log_weight(some, references)
            parts.append(self.field.towards(some.letters, references.letters, progress, log_weight=weight))
        return self._joined(torch.cat(parts))

    def _log_weight(self, queries: _Stretches, references: _Stretches) -> Tensor | None:
        """Log-similarity of the signals around all pairs; -inf for pairs of one sample."""
        near = None
        if queries.around is not None and references.around is not None and self.similarity is not None:
            near = self.similarity.log(queries.around, references.around)
        if queries.sample is None or references.sample is None:
            return near
        near = queries.letters.new_zeros(()) if near is None else near
        return torch.where(queries.sample[:, None] == references.sample, -torch.inf, near)

    def _places(self, reach: int = 0) -> Int64[Tensor, "S w"]:
        """Positions of all stretches of a sample with `reach` more on both sides, if it is padded so."""
        return self.starts[:, None] + torch.arange(self.length + 2 * reach)

    def _cut(self, x: Float[Tensor, "n L k"], reach: int = 0) -> Float[Tensor, "nS w k"]:
        """Stretches of samples with `reach` positions more on both sides, zero outside."""
        return F.pad(x, (0, 0, reach, reach))[:, self._places(reach).to(x.device)].flatten(0, 1)

    def _each(self, samples: Int64[Tensor, " n"] | None) -> Int64[Tensor, " nS"] | None:
        """Numbers of samples, for each of their stretches."""
        return None if samples is None else samples.repeat_interleave(len(self.starts))

    def _around(self, signal: Float[Tensor, "n L tracks"] | None) -> Float[Tensor, "nS f"] | None:
        """Features of the signal around every stretch of samples, if signals are compared."""
        if signal is None or self.similarity is None:
            return None
        return local_features(self._cut(signal, REACH))

    def _joined(self, v: Float[Tensor, "nS w 4"]) -> Float[Tensor, "n L 4"]:
        """Mean at each position over the stretches that cover it."""
        places = self._places().flatten().to(v.device)
        together = rearrange(v, "(n S) w k -> n (S w) k", S=len(self.starts))
        sums = v.new_zeros(len(together), self.data.length, v.shape[-1]).index_add_(1, places, together)
        return sums / places.bincount(minlength=self.data.length)[:, None]

    def _attracting(self, data: Int64[Tensor, "m 3"], like: Tensor | None) -> _Stretches:
        """Stretches of the data at places, with signals of the dtype and device of `like`."""
        row, shift, start = data.cpu().unbind(1)
        places = start[:, None] + torch.arange(self.length)
        tokens = self.data.tokens(row, shift).gather(1, places).to(data.device)
        if like is None or self.similarity is None:
            return _Stretches(tokens, None, None)
        signal = F.pad(self.data.signals(row, shift), (0, 0, REACH, REACH))
        places = start[:, None] + torch.arange(self.length + 2 * REACH)
        around = signal.gather(1, places[..., None].expand(-1, -1, TRACKS)).to(like)
        return _Stretches(tokens, local_features(around), None)

    def _repelling(self, model: Float[Tensor, "k L 4"], signal: Tensor | None) -> _Stretches:
        """Stretches of the samples, not all of them if there are more than `most_repelling`."""
        sample = self._each(torch.arange(len(model), device=model.device))
        every = math.ceil(len(model) * len(self.starts) / self.most_repelling)
        while math.gcd(every, len(self.starts)) > 1:  # else some places would never repel
            every += 1
        stretches = _Stretches(decode(self._cut(model)), self._around(signal), sample)
        return stretches.at(slice(None, None, every))
