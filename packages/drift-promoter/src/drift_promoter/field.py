"""Drift fields of promoters: of whole sequences and of all their short stretches, given the signal."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from drift_core import DriftTerms, Manifold, RadialKernel
from drift_core.field import DriftField
from drift_simplex import CategoricalField, FisherRao, decode
from einops import rearrange
from jaxtyping import Float, Int64
from torch import Generator, Tensor
from torch.nn import functional as F

from drift_promoter.data import TRACKS, Windows

_BINS = 32
"""Bins in which the signal of a whole sequence is compared."""
_REACH, _BIN = 64, 4
"""How far around a stretch the signal is compared, and in bins of how many base pairs."""
_FAINT, _SIZE = 0.1, 0.1
"""Size at which a binned signal counts half by its shape, and the weight of the size itself."""
_PAIRS = 2**23
"""Pairs of stretches whose similarity is held at once; memory is linear in the batch."""


def draw_places(data: Windows, stretch: int) -> Callable[[int, Generator], Int64[Tensor, "m 3"]]:
    """Sampler of places in the data, for `train`: window, how far it is shifted, where a stretch starts.

    Windows are drawn uniformly, without repetition where there are enough of them.
    """

    def draw(n: int, generator: Generator) -> Tensor:
        rows = torch.cat([torch.randperm(len(data), generator=generator) for _ in range(-(-n // len(data)))])
        shift = torch.randint(-data.margin, data.margin + 1, (n,), generator=generator)
        start = torch.randint(data.length - stretch + 1, (n,), generator=generator)
        return torch.stack([rows[:n], shift, start], dim=1)

    return draw


def draw_signals(data: Windows) -> Callable[[int, Generator], Float[Tensor, "n length tracks"]]:
    """Sampler of training signals, the conditions of `train`, shifted as the windows are."""
    places = draw_places(data, data.length)

    def draw(n: int, generator: Generator) -> Tensor:
        row, shift, _ = places(n, generator).unbind(1)
        return data.signals(row, shift)

    return draw


@dataclass(frozen=True)
class Similarity:
    """Kernel of conditions: how alike two signals, or their parts around two stretches, are."""

    kernel: RadialKernel
    """Of the distance between their `features`."""

    def log(self, a: Float[Tensor, "n f"], b: Float[Tensor, "m f"]) -> Float[Tensor, "n m"]:
        """Log-similarity of all pairs of features."""
        # A matrix product: equal features get a distance of 1e-3 or less, below any sensible lengthscale.
        return self.kernel.log(torch.cdist(a, b, compute_mode="use_mm_for_euclid_dist"))


@dataclass(frozen=True)
class WholeField:
    """Drift field of whole sequences, a `ConditionalField` of places (`draw_places`).

    References count by the similarity of their signals, so that it is the field of the product kernel
    k_signal(s, s') k(x, x') with the gradient in x alone; without `similarity` all count alike.
    """

    field: CategoricalField | DriftField
    """Of tokens, or of one-hot points in R^4 at each position."""
    data: Windows
    similarity: Similarity | None

    @property
    def manifold(self) -> Manifold:
        """The geometry of the sequences."""
        return self.field.manifold

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
        """Attraction to the windows `data` and repulsion from the model, of like signals."""
        references, near_data = self._references(data, x, condition)
        near_model = None
        if condition is not None and model_condition is not None and self.similarity is not None:
            near_model = self.similarity.log(whole_features(condition), whole_features(model_condition))
        return self.field.terms(
            x,
            references,
            model,
            self_index,
            progress,
            data_log_weight=near_data,
            model_log_weight=near_model,
        )

    def effective_samples(
        self,
        x: Float[Tensor, "n L 4"],
        data: Int64[Tensor, "m 3"],
        progress: float = 1.0,
        *,
        condition: Float[Tensor, "n L tracks"] | None = None,
    ) -> float:
        """Mean effective number of training windows per sample."""
        references, weight = self._references(data, x, condition)
        return self.field.effective_samples(x, references, progress, data_log_weight=weight)

    def _references(self, data: Tensor, x: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Windows as the field takes them, and the log-similarity of their signals with the conditions."""
        row, shift, _ = data.cpu().unbind(1)
        tokens = self.data.tokens(row, shift).to(x.device)
        points = tokens if isinstance(self.field, CategoricalField) else F.one_hot(tokens, x.shape[2]).to(x)
        if condition is None or self.similarity is None:
            return points, None
        signals = self.data.signals(row, shift).to(condition)
        return points, self.similarity.log(whole_features(condition), whole_features(signals))


@dataclass(frozen=True)
class StretchField:
    """Drift field of all stretches of a length, wherever they lie; a `ConditionalField` of places.

    Sequences of a thousand letters are all about equally far from one another, and no training set holds
    two neighbours; stretches of eight recur thousands of times. The field of a sequence is the mean, at
    each position, of the fields of the stretches that cover it, each against stretches of the data and
    of all other samples. References count by the similarity of the signal around them; without
    `similarity`, all count alike.

    Samples repel as the letters that they decode to, with which they are compared in the end, and which
    cost a lookup a letter, so that thousands of stretches can repel. A sample's own stretches do not
    repel: what a sequence has in common with itself, such as its GC content, would drive it away from
    itself, though p = q.

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
        """Attraction to stretches of the data, and repulsion from stretches of the model."""
        queries, repelling = self._cut(x), self._cut(model)
        owner = self._numbers(len(model), x.device)
        own = owner.new_full((len(queries),), -1)
        if self_index is not None:
            own = self_index.repeat_interleave(len(self.starts))
        every = self._spacing(len(model))
        tokens, around = self._references(data, condition)
        there = None if model_condition is None else self._around(model_condition)[::every]
        here = None if condition is None else self._around(condition)
        repelling, owner = decode(repelling[::every]), owner[::every]
        attraction, repulsion = [], []
        block = max(1, _PAIRS // max(len(tokens), len(repelling)))
        for rows in torch.split(torch.arange(len(queries), device=x.device), block):
            some = None if here is None else here[rows]
            near = self._log_similarity(some, around)
            attraction.append(self.field.towards(queries[rows], tokens, progress, log_weight=near))
            near = self._log_similarity(some, there)
            near = torch.where(own[rows, None] == owner, -torch.inf, x.new_zeros(()) if near is None else near)
            repulsion.append(self.field.towards(queries[rows], repelling, progress, log_weight=near))
        return DriftTerms(*(self._joined(torch.cat(v), len(x)) for v in (attraction, repulsion)))

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
        tokens, around = self._references(data, condition)
        here = None if condition is None else self._around(condition[:few])
        return self.field.effective_samples(
            self._cut(x[:few]), tokens, progress, data_log_weight=self._log_similarity(here, around)
        )

    def _numbers(self, samples: int, device: torch.device) -> Int64[Tensor, " kS"]:
        """Which sample each of all stretches belongs to."""
        return torch.arange(samples, device=device).repeat_interleave(len(self.starts))

    def _spacing(self, samples: int) -> int:
        """Every how many of the model's stretches one repels."""
        every = math.ceil(samples * len(self.starts) / self.most_repelling)
        while math.gcd(every, len(self.starts)) > 1:  # else some places would never repel
            every += 1
        return every

    def _cut(self, x: Float[Tensor, "n L 4"]) -> Float[Tensor, "nS w 4"]:
        places = self.starts[:, None] + torch.arange(self.length)
        return x[:, places.to(x.device)].flatten(0, 1)

    def _joined(self, v: Float[Tensor, "nS w 4"], n: int) -> Float[Tensor, "n L 4"]:
        """Mean at each position over the stretches that cover it."""
        places = (self.starts[:, None] + torch.arange(self.length)).flatten().to(v.device)
        sums = v.new_zeros(n, self.data.length, v.shape[-1])
        sums.index_add_(1, places, rearrange(v, "(n S) w k -> n (S w) k", n=n))
        return sums / places.bincount(minlength=self.data.length)[:, None]

    def _references(self, data: Tensor, like: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Letters [m, w] of stretches of the data, and the signal around them."""
        row, shift, start = data.cpu().unbind(1)
        places = start[:, None] + torch.arange(self.length)
        tokens = self.data.tokens(row, shift).gather(1, places).to(data.device)
        if like is None or self.similarity is None:
            return tokens, None
        signal = F.pad(self.data.signals(row, shift), (0, 0, _REACH, _REACH))
        places = start[:, None] + torch.arange(self.length + 2 * _REACH)
        around = signal.gather(1, places[..., None].expand(-1, -1, TRACKS)).to(like)
        return tokens, local_features(around)

    def _around(self, signal: Float[Tensor, "n L tracks"]) -> Float[Tensor, "nS f"]:
        """Binned signal around every stretch."""
        padded = F.pad(signal, (0, 0, _REACH, _REACH))
        places = self.starts[:, None] + torch.arange(self.length + 2 * _REACH)
        return local_features(padded[:, places.to(signal.device)].flatten(0, 1))

    def _log_similarity(self, a: Tensor | None, b: Tensor | None) -> Tensor | None:
        return None if a is None or b is None or self.similarity is None else self.similarity.log(a, b)


@dataclass(frozen=True)
class SumField:
    """Sum of two fields, a `ConditionalField`; the effective sample size is the first one's."""

    first: StretchField
    second: WholeField
    weight: float
    """Factor of the second."""

    @property
    def manifold(self) -> Manifold:
        """The geometry of the sequences."""
        return self.first.manifold

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
        """Sums of both attractions and of both repulsions."""
        given = {"condition": condition, "model_condition": model_condition}
        a = self.first.terms(x, data, model, self_index, progress, **given)
        b = self.second.terms(x, data, model, self_index, progress, **given)
        return DriftTerms(a.attraction + self.weight * b.attraction, a.repulsion + self.weight * b.repulsion)

    def effective_samples(
        self,
        x: Float[Tensor, "n L 4"],
        data: Int64[Tensor, "m 3"],
        progress: float = 1.0,
        *,
        condition: Float[Tensor, "n L tracks"] | None = None,
    ) -> float:
        """Mean effective number of stretches of the data per stretch of the samples."""
        return self.first.effective_samples(x, data, progress, condition=condition)


def whole_features(signal: Float[Tensor, "n L tracks"]) -> Float[Tensor, "n f"]:
    """`features` of whole signals in 32 bins."""
    tracks = rearrange(signal, "n l t -> n t l")
    return features(F.adaptive_avg_pool1d(tracks, min(_BINS, signal.shape[1])).flatten(1))


def local_features(signal: Float[Tensor, "n l tracks"]) -> Float[Tensor, "n f"]:
    """`features` of the signal around stretches, in bins of four base pairs."""
    tracks = rearrange(signal, "n l t -> n t l")
    return features(F.avg_pool1d(tracks, _BIN, ceil_mode=True).flatten(1))


def features(binned: Float[Tensor, "n b"]) -> Float[Tensor, "n f"]:
    """The shape of a binned signal, a vector of length 1 (or less, if it is faint), and a little of its size.

    Motifs have a place and peaks have heights of all sizes: without the division, two heights would differ
    more than two places.
    """
    size = binned.norm(dim=1, keepdim=True)
    return torch.cat([binned / (size + _FAINT), _SIZE * size], dim=1)
