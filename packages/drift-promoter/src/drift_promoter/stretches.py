"""The drift field of promoters' short stretches, given the signal."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import torch
from drift_core import Batch, Drift, Manifold
from drift_core.seeds import generator_for
from drift_simplex import CategoricalField, FisherRao, decode, sample_tokens
from drift_simplex.kmers import MAX_KMERS
from einops import rearrange
from jaxtyping import Float, Float64, Int64, Shaped
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm

from drift_promoter.bases import LETTERS
from drift_promoter.data import Windows
from drift_promoter.kinds import SignalKinds, choose_kinds
from drift_promoter.metrics import kmer_codes
from drift_promoter.similarity import REACH, Similarity, local_features

_PAIRS = 2**23
"""Pairs of stretches whose similarity is held at once; memory is linear in the batch."""
_WINDOWS = 2048
"""Windows whose words are counted at once."""
_DRAWS = 4
"""Sequences that are drawn of a sample where all of its words are counted."""

_LETTERS = 5
"""Stream of random letters."""

_OTHERS = 1e-3
"""How much words count whose signals are of another kind, so that a rare kind in a batch is not alone."""

Repel = Literal["points", "letters", "drawn"]


class _Stretches(NamedTuple):
    """Stretches of samples or of data."""

    letters: Tensor
    """Points [m, w, 4], or tokens [m, w]."""
    around: Tensor | None
    """Features of the signal around each."""
    source: Tensor | None
    """Number of what each comes from, [m]: stretches of one source do not repel one another."""

    def at(self, rows: slice) -> "_Stretches":
        around = None if self.around is None else self.around[rows]
        source = None if self.source is None else self.source[rows]
        return _Stretches(self.letters[rows], around, source)


@dataclass(frozen=True)
class StretchField:
    """Drift field of all stretches of a length, wherever they lie; its data are places.

    Sequences of a thousand letters are all about equally far from one another, and no training set holds
    two neighbours; stretches of eight recur about a thousand times. The field of a sequence is the mean,
    at each position, of the fields of the stretches that cover it, each against stretches of the data and
    of the samples. References count by the similarity of the signal around them.

    Without `similarity` all count alike. Then stretches of up to 10 letters are attracted by all those of all
    training windows, which a table counts once (`drift_simplex.kmer_scores`), and not only by those at the
    places that are drawn.

    Stretches start every half of their length, so that every pair of neighbours lies within one.
    """

    field: CategoricalField
    data: Windows
    similarity: Similarity | None
    length: int = 8
    repel: Repel = "points"
    """Samples repel as the soft points that they are, except each stretch itself; or as letters, a lookup a
    letter, except all stretches of the same sample: those that they decode to, or "drawn" from the
    distributions that they are. Where the data are counted, so are the letters that are drawn, of all
    stretches but each itself."""
    most_repelling: int = 1_024
    """Stretches of the model, evenly spread over its samples, that repel where they are not counted."""
    kinds: int = 0
    """With `similarity`: compare signals by their kind instead, of so many (`SignalKinds`), and count words
    by it, for stretches of up to 10 letters that repel as drawn; 0: compare signals as they are."""
    seed: int = 0
    """Seed of the kinds and of the letters that are drawn, which are the same for the same step."""

    def __post_init__(self) -> None:
        if not 2 <= self.length <= self.data.length:
            raise ValueError(f"stretches must have 2 to {self.data.length} base pairs, got {self.length}")
        if self.kinds and (self.repel != "drawn" or not self._few_words):
            needs = "signal kinds need repel drawn, and stretches of at most 10 base pairs"
            raise ValueError(f"{needs}; got {self.kinds}, {self.repel} and {self.length}")

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

    def __call__(self, batch: Batch) -> Drift:
        """Attraction to stretches of the data, and repulsion from those of the model, given the signals."""
        x, (model, own) = batch.x, batch.negatives()
        there = batch.condition if batch.model is None else batch.model_condition
        queries = _Stretches(self._cut(x), self._around(batch.condition), self._sources(own))
        kinds = self._kinds_of(batch.condition)
        if self._counted:
            words = self.words.to(x.device)
            attraction = self._joined(
                self._towards_counted(queries.letters, kinds, words, None, batch.progress)
            )
        else:
            attraction = self._towards(queries, self._attracting(batch.data, batch.condition), batch.progress)
        random = generator_for(self.seed, batch.step, _LETTERS)
        if self._counted and self.repel == "drawn":
            repelling = self._drawn(model, self._kinds_of(there), random)
            repulsion = self._from_drawn(queries.letters, kinds, *repelling, own, batch.progress)
        else:
            repulsion = self._towards(queries, self._repelling(model, there, random), batch.progress)
        return Drift(attraction, repulsion)

    def diagnostics(self, batch: Batch) -> dict[str, float]:
        """Mean effective number of stretches of the data per stretch of the first samples (ess)."""
        x, data, progress = batch.x, batch.data, batch.progress
        if self._counted:
            cut, kinds, words = self._cut(x), self._kinds_of(batch.condition), self.words.to(x.device)
            sizes = [
                (len(rows), self.field.effective_kmers(cut[rows], words[kind], progress))
                for kind, rows in _grouped(kinds, len(cut), x.device)
            ]
            return {"ess": sum(n * size for n, size in sizes) / max(1, len(cut))}
        few = max(1, _PAIRS // (len(data) * len(self.starts)))
        queries = _Stretches(self._cut(x), self._around(batch.condition), None).at(
            slice(few * len(self.starts))
        )
        references = self._attracting(data, batch.condition)
        weight = self._log_weight(queries, references)
        return self.field.diagnostics(
            Batch(queries.letters, references.letters, progress=progress, data_log_weight=weight)
        )

    @property
    def _counted(self) -> bool:
        return self._few_words and (self.similarity is None or self.kinds > 0)

    @property
    def _few_words(self) -> bool:
        return len(LETTERS) ** self.length <= MAX_KMERS

    @cached_property
    def signal_kinds(self) -> SignalKinds | None:
        """Kinds of signals, if they are what is compared."""
        if self.similarity is None or not self.kinds:
            return None
        return choose_kinds(self.data, self.starts, self.length, self.kinds, self.seed)

    @cached_property
    def words(self) -> Float64[Tensor, "kinds words"]:
        """How often each word as long as a stretch occurs in the training windows, at every position.

        For each kind of signal; a word has that of the last stretch that starts before it.
        """
        counts = torch.zeros(1, dtype=torch.float64)
        stretch = torch.searchsorted(
            self.starts, torch.arange(self.data.length - self.length + 1), right=True
        )
        blocks = torch.split(torch.arange(len(self.data)), _WINDOWS)
        for rows in tqdm(blocks, desc="count words", leave=False, delay=2):
            kinds = None
            if self.signal_kinds is not None:
                kinds = self.signal_kinds.of(self.data.signals(rows))[:, stretch - 1]
            counts = counts + self._count(kmer_codes(self.data.tokens(rows), self.length), kinds)
        return self._shared(counts)

    def _count(self, codes: Int64[Tensor, "..."], kinds: Int64[Tensor, "..."] | None) -> Tensor:
        """How often each word occurs with each kind of signal, or with any."""
        words = len(LETTERS) ** self.length
        count = 1 if self.signal_kinds is None else len(self.signal_kinds)
        codes = codes if kinds is None else codes + words * kinds
        return codes.flatten().bincount(minlength=count * words).view(count, words)

    def _shared(self, counts: Tensor) -> Float64[Tensor, "kinds words"]:
        """Counts of each kind and, for little, of all others."""
        return counts + _OTHERS * (counts.sum(0) - counts)

    def _kinds_of(self, signal: Tensor | None) -> Int64[Tensor, " nS"] | None:
        """Kind of the signal around every stretch of samples, if signals have kinds."""
        if signal is None or self.signal_kinds is None:
            return None
        return self.signal_kinds.of(signal).flatten()

    def _towards_counted(
        self,
        queries: Float[Tensor, "nS w 4"],
        kinds: Int64[Tensor, " nS"] | None,
        counts: Shaped[Tensor, "kinds words"],
        own: Int64[Tensor, "nS r w"] | None,
        progress: float,
    ) -> Float[Tensor, "nS w 4"]:
        """Pull of the words that are counted for the kind of each stretch, but its own."""
        pulled = torch.empty_like(queries)
        for kind, rows in _grouped(kinds, len(queries), queries.device):
            without = None if own is None else own[rows]
            pulled[rows] = self.field.attraction_to_kmers(queries[rows], counts[kind], progress, own=without)
        return pulled

    def _towards(self, queries: _Stretches, references: _Stretches, progress: float) -> Tensor:
        """Mean at each position of the pulls of references on the stretches that cover it."""
        block = max(1, _PAIRS // max(1, len(references.letters)))
        parts = []
        for low in range(0, max(1, len(queries.letters)), block):
            some = queries.at(slice(low, low + block))
            weight = self._log_weight(some, references)
            soft = references.letters.is_floating_point()
            towards = self.field.attraction_to_points if soft else self.field.attraction_to_tokens
            parts.append(towards(some.letters, references.letters, progress, log_weight=weight))
        return self._joined(torch.cat(parts))

    def _drawn(
        self, model: Float[Tensor, "k L 4"], kinds: Int64[Tensor, " kS"] | None, random: torch.Generator
    ) -> tuple[Int64[Tensor, "r k S w"], Float64[Tensor, "kinds words"]]:
        """Stretches of sequences that are drawn of the samples, and how often each word is among them."""
        drawn = torch.stack([sample_tokens(model, random) for _ in range(_DRAWS)])
        words = drawn[..., self._places().to(model.device)]
        place = len(LETTERS) ** torch.arange(self.length - 1, -1, -1, device=model.device)
        return words, self._shared(self._count((words * place).sum(-1).flatten(1), kinds).double())

    def _from_drawn(
        self,
        queries: Float[Tensor, "nS w 4"],
        kinds: Int64[Tensor, " nS"] | None,
        words: Int64[Tensor, "r k S w"],
        counts: Float64[Tensor, "kinds words"],
        self_index: Int64[Tensor, " n"] | None,
        progress: float,
    ) -> Float[Tensor, "n L 4"]:
        """Repulsion from all stretches that were drawn, but each stretch's own."""
        if self_index is None:
            return self._joined(self._towards_counted(queries, kinds, counts, None, progress))
        pulled = torch.empty_like(queries)
        known = (self_index >= 0) & (self_index < words.shape[1])
        rows = known.repeat_interleave(len(self.starts))
        own = rearrange(words[:, self_index[known]], "r n S w -> (n S) r w")
        for some, without in ((rows, own), (~rows, None)):
            here = None if kinds is None else kinds[some]
            pulled[some] = self._towards_counted(queries[some], here, counts, without, progress)
        return self._joined(pulled)

    def _log_weight(self, queries: _Stretches, references: _Stretches) -> Tensor | None:
        """Log-similarity of the signals around all pairs; -inf for pairs of one source."""
        near = None
        if queries.around is not None and references.around is not None and self.similarity is not None:
            near = self.similarity.log(queries.around, references.around)
        if queries.source is None or references.source is None:
            return near
        near = queries.letters.new_zeros(()) if near is None else near
        return torch.where(queries.source[:, None] == references.source, -torch.inf, near)

    def _places(self, reach: int = 0) -> Int64[Tensor, "S w"]:
        """Positions of all stretches of a sample with `reach` more on both sides, if it is padded so."""
        return self.starts[:, None] + torch.arange(self.length + 2 * reach)

    def _cut(self, x: Float[Tensor, "n L k"], reach: int = 0) -> Float[Tensor, "nS w k"]:
        """Stretches of samples with `reach` positions more on both sides, zero outside."""
        return F.pad(x, (0, 0, reach, reach))[:, self._places(reach).to(x.device)].flatten(0, 1)

    def _sources(self, samples: Int64[Tensor, " n"] | None) -> Int64[Tensor, " nS"] | None:
        """For each stretch of samples its own number, or that of its sample."""
        if samples is None:
            return None
        count = len(self.starts)
        if self.repel != "points":
            return samples.repeat_interleave(count)
        return (count * samples[:, None] + torch.arange(count, device=samples.device)).flatten()

    def _around(self, signal: Float[Tensor, "n L tracks"] | None) -> Float[Tensor, "nS f"] | None:
        """Features of the signal around every stretch of samples, if signals are compared as they are."""
        if signal is None or self.similarity is None or self.kinds:
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
        around = signal.gather(1, places[..., None].expand(-1, -1, signal.shape[2])).to(like)
        return _Stretches(tokens, local_features(around), None)

    def _repelling(
        self, model: Float[Tensor, "k L 4"], signal: Tensor | None, random: torch.Generator
    ) -> _Stretches:
        """Stretches of the samples, not all of them if there are more than `most_repelling`."""
        source = self._sources(torch.arange(len(model), device=model.device))
        every = math.ceil(len(model) * len(self.starts) / self.most_repelling)
        while math.gcd(every, len(self.starts)) > 1:  # else some places would never repel
            every += 1
        if self.repel == "points":
            letters = self._cut(model)
        else:
            tokens = decode(model) if self.repel == "letters" else sample_tokens(model, random)
            letters = tokens[:, self._places().to(model.device)].flatten(0, 1)
        return _Stretches(letters, self._around(signal), source).at(slice(None, None, every))


def _grouped(
    kinds: Tensor | None, count: int, device: torch.device
) -> Iterator[tuple[int, Int64[Tensor, " rows"]]]:
    """Each kind that there is with its rows; all rows are of one where there are none."""
    if kinds is None:
        yield 0, torch.arange(count, device=device)
        return
    order = kinds.argsort(stable=True)
    found, sizes = torch.unique(kinds, return_counts=True)
    yield from zip(found.tolist(), torch.split(order, sizes.tolist()), strict=True)
