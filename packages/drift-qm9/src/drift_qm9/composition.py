"""Strings of given composition, so that as many are long, or have so many rings, as in the data."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from drift_core import Batch, Drift, Field, Manifold
from drift_core.field import diagnostics, observe, observes
from jaxtyping import Float, Int64, Integer
from torch import Tensor

_BITS = 10
"""Of a count: without its first letter and its end, a string is shorter than 2^10 tokens."""


@dataclass(frozen=True)
class Composition:
    """What is counted of a string: its tokens, and those of some kinds of letters.

    Raises ValueError for more than five kinds: the counts of a string are the bits of one integer.
    """

    end: int
    """Token that ends a string."""
    kinds: Sequence[Sequence[int]] = ()
    """Letters of each kind; a letter may be of several or of none."""

    def __post_init__(self) -> None:
        if self.size * _BITS > 63:
            raise ValueError(f"a composition has at most five kinds of letters, got {len(self.kinds)}")

    @property
    def size(self) -> int:
        """Number of counts."""
        return 1 + len(self.kinds)

    def __call__(self, tokens: Integer[Tensor, "m L"]) -> Int64[Tensor, "m counts"]:
        """Counts of strings, between their first letter, <bos>, and the first end.

        A string without an end has one in the place of its last letter. Raises ValueError for strings of
        more than 1,024 tokens.
        """
        return (self.codes(tokens)[:, None] >> _places(self.size, tokens.device)) & (2**_BITS - 1)

    def codes(self, tokens: Integer[Tensor, "m L"]) -> Int64[Tensor, " m"]:
        """The counts of each string as one number. Raises as the counts."""
        if tokens.shape[1] > 2**_BITS:
            raise ValueError(f"strings have at most {2**_BITS} tokens, got {tokens.shape[1]}")
        ends, last = tokens == self.end, tokens.shape[1] - 1
        first = ends.int().argmax(1).masked_fill(~ends.any(1), last)
        place = torch.arange(last + 1, device=tokens.device)
        inside = (place > 0) & (place < first[:, None])
        letters = tokens.long().clamp(max=len(self._code_of_letter) - 1)
        return (self._code_of_letter.to(tokens.device)[letters] * inside).sum(1)

    @cached_property
    def _code_of_letter(self) -> Int64[Tensor, " letters"]:
        """What each letter adds to the code of a string; the last entry is for letters of no kind."""
        code = torch.ones(2 + max((letter for kind in self.kinds for letter in kind), default=-1)).long()
        for column, kind in enumerate(self.kinds, start=1):
            code[list(set(kind))] += 1 << column * _BITS
        return code

    def of_classes(self, classes: Sequence[int]) -> tuple["Composition", list[int]]:
        """Composition of strings of classes of letters, and which of these counts they are.

        A kind is counted if classes tell it from all other letters.
        """
        kinds, columns = [], [0]
        for column, kind in enumerate(self.kinds, start=1):
            own = {classes[letter] for letter in kind}
            if {letter for letter, group in enumerate(classes) if group in own} == set(kind):
                kinds.append(tuple(sorted(own)))
                columns.append(column)
        return Composition(classes[self.end], tuple(kinds)), columns


@dataclass(frozen=True)
class CompositionField:
    """One drift problem per composition: samples meet data and samples of their own alone.

    A sample's composition is given (`Batch.condition`), that of the data is read from their tokens. A kernel
    of strings alone does not tell how much mass lies far from a sample: as it becomes short, strings that are
    few, such as long ones, lose theirs. Compositions that are drawn by their frequency in the data keep it.
    A step should have several samples of each of its compositions, which repel one another, and data of
    these (`drift_core.training.in_runs`, `Matched`). The drift is `ConditionalField`'s, of all problems in
    one pass, since a step has many small ones.
    """

    field: Field
    composition: Composition
    """Of the data."""
    columns: Sequence[int] | None = None
    """Which counts of the samples these are; none: all."""

    @property
    def manifold(self) -> Manifold:
        """The geometry of the strings."""
        return self.field.manifold

    def __call__(self, batch: Batch) -> Drift:
        """Drift of the wrapped field, without references of other compositions."""
        return self.field(self._separated(batch))

    @property
    def observes(self) -> bool:
        """Whether the wrapped field observes batches."""
        return observes(self.field)

    def observe(self, batch: Batch) -> None:
        """Let the wrapped field observe the batch."""
        observe(self.field, self._separated(batch))

    def diagnostics(self, batch: Batch) -> dict[str, float]:
        """Diagnostics of the wrapped field."""
        return diagnostics(self.field, self._separated(batch))

    def _separated(self, batch: Batch) -> Batch:
        own = batch.condition
        there = own if batch.model is None else batch.model_condition
        if own is None or there is None:
            raise ValueError("a field of given compositions needs those of the samples as conditions")
        if self.columns is not None:
            own, there = own[:, self.columns], there[:, self.columns]
        codes, data = _codes(own), self.composition.codes(batch.data)
        return replace(
            batch,
            data_log_weight=_within(codes, data, batch.data_log_weight, batch.x),
            model_log_weight=_within(codes, _codes(there), batch.model_log_weight, batch.x),
        )


def _codes(counts: Int64[Tensor, "n counts"]) -> Int64[Tensor, " n"]:
    """One number for all counts of a string."""
    return (counts << _places(counts.shape[1], counts.device)).sum(1)


def _places(counts: int, device: torch.device) -> Int64[Tensor, " counts"]:
    """First bit of each count in a code."""
    return torch.arange(counts, device=device) * _BITS


def _within(
    own: Int64[Tensor, " n"], there: Int64[Tensor, " m"], given: Tensor | None, like: Tensor
) -> Float[Tensor, "n m"]:
    """Given log-weights, or 0, of pairs with equal codes, and -inf of the others."""
    distinct, rows = torch.unique(own, return_inverse=True)  # few: a step has several samples of each
    excluded = torch.where(distinct[:, None] == there, like.new_zeros(()), -torch.inf)[rows]
    return excluded if given is None else excluded + given.to(like)
