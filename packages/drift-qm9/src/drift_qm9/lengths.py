"""The field of strings of given lengths, so that as many are long as in the data."""

from dataclasses import dataclass, replace

from drift_core import Batch, Drift, Field, Manifold
from drift_core.field import diagnostics, observe
from jaxtyping import Float, Int64, Integer
from torch import Tensor

RATE = 3.0
"""Nats by which a reference counts less for each token that it is longer or shorter."""


def lengths_of(tokens: Integer[Tensor, "m L"], end: int) -> Int64[Tensor, " m"]:
    """Letters between the first one, <bos>, and the first `end`, where the last one is, if there is none."""
    ends, last = tokens == end, tokens.shape[1] - 1
    first = ends.int().argmax(1).masked_fill(~ends.any(1), last)
    return (first - 1).clamp_min(0)


@dataclass(frozen=True)
class LengthField:
    """Drift field of the product kernel exp(-rate |l - l'|) k(x, x') of the lengths l and the strings x.

    A sample's length is given (`Batch.condition`), that of the data is read from their tokens. A kernel of
    strings alone does not tell how much mass lies far from a sample: as it becomes short, long strings, which
    are few, lose theirs. Lengths that are drawn by their frequency in the data keep it. The field is a
    difference of scores in x, of the densities of pairs (l, x), whose lengths have the same law.
    """

    field: Field
    end: int
    """Token that ends a string."""
    rate: float = RATE

    @property
    def manifold(self) -> Manifold:
        """The geometry of the strings."""
        return self.field.manifold

    def __call__(self, batch: Batch) -> Drift:
        """Drift of the wrapped field, with references weighted by their lengths."""
        return self.field(self._weighted(batch))

    def observe(self, batch: Batch) -> None:
        """Let the wrapped field observe the weighted batch."""
        observe(self.field, self._weighted(batch))

    def diagnostics(self, batch: Batch) -> dict[str, float]:
        """Diagnostics of the wrapped field, with references weighted by their lengths."""
        return diagnostics(self.field, self._weighted(batch))

    def _weighted(self, batch: Batch) -> Batch:
        own = batch.condition
        there = own if batch.model is None else batch.model_condition
        if own is None or there is None:
            raise ValueError("a field of given lengths needs the lengths of the samples as conditions")
        to_data = self._log_weight(own, lengths_of(batch.data, self.end), batch.x)
        to_model = self._log_weight(own, there, batch.x)
        return replace(
            batch,
            data_log_weight=_total(to_data, batch.data_log_weight),
            model_log_weight=_total(to_model, batch.model_log_weight),
        )

    def _log_weight(
        self, a: Integer[Tensor, " n"], b: Integer[Tensor, " m"], like: Tensor
    ) -> Float[Tensor, "n m"]:
        return (a.to(like)[:, None] - b.to(like)).abs_().mul_(-self.rate)


def _total(log_weight: Tensor, given: Tensor | None) -> Tensor:
    return log_weight if given is None else log_weight + given
