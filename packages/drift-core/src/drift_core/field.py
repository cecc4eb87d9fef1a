"""The interface of drift fields: attraction and repulsion at the samples of a batch."""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from drift_core.manifold import Manifold


@dataclass(frozen=True)
class Batch:
    """Input of a drift field: samples, data, and the progress of training."""

    x: Tensor
    """Samples at which to evaluate the field, [n, *point]."""
    data: Tensor
    """Data points that attract, [m, *point], or the tokens or indices that represent them."""
    model: Tensor | None = None
    """Samples that repel, [k, *point]; None: x, each excluded from its own repulsion."""
    self_index: Tensor | None = None
    """Row of each x in `model`, excluded from its own repulsion, [n]; outside 0..k-1: none."""
    step: int = 0
    """Training step, from 0; the seed of fields that draw random numbers."""
    progress: float = 1.0
    """Fraction of training completed, with which lengthscales anneal."""
    condition: Tensor | None = None
    """Conditions of x, [n, ...]."""
    model_condition: Tensor | None = None
    """Conditions of the samples that repel, [k, ...]."""
    data_condition: Tensor | None = None
    """Conditions of the data, [m, ...]."""
    data_log_weight: Tensor | None = None
    """Log-weights of the data, broadcast to [n, m]; -inf excludes a pair."""
    model_log_weight: Tensor | None = None
    """Log-weights of the samples that repel, broadcast to [n, k]."""
    num_generated: int | None = None
    """How many of the samples that repel, the first, are generated, the others being data; None: all."""

    def negatives(self) -> tuple[Tensor, Tensor | None]:
        """Samples that repel, and the row of each x among them."""
        if self.model is not None:
            return self.model, self.self_index
        return self.x, torch.arange(len(self.x), device=self.x.device)

    def pooled(self) -> tuple["Batch", Tensor]:
        """The batch at all generated samples, and the row of each x among them.

        Statistics over the samples, such as a mean, are computed on it, so that they are the same however
        many processes share the samples. Where the x are not among the samples that repel, it is the batch.

        Raises:
            ValueError: log-weights that differ between the x.
        """
        rows = torch.arange(len(self.x), device=self.x.device)
        if self.model is None or self.self_index is None or self.complete:
            return self, rows
        generated = self.model[: self.num_generated]
        weights = (self.data_log_weight, self.model_log_weight)
        if any(weight is not None and weight.ndim == 2 and len(weight) > 1 for weight in weights):
            raise ValueError("a statistic over all samples needs one log-weight a reference, not one a pair")
        everywhere = torch.arange(len(generated), device=self.x.device)
        whole = replace(self, x=generated, self_index=everywhere, condition=self.model_condition)
        return whole, self.self_index

    @property
    def complete(self) -> bool:
        """Whether the x are all generated samples, in their order."""
        if self.model is None:
            return True
        if self.self_index is None or len(self.model[: self.num_generated]) != len(self.x):
            return False
        return bool((self.self_index == torch.arange(len(self.x), device=self.x.device)).all())

    def head(self, n: int) -> "Batch":
        """The batch with only its first n samples, and the same samples that repel."""
        model, own = self.negatives()
        return replace(
            self,
            x=self.x[:n],
            model=model,
            self_index=None if own is None else own[:n],
            condition=None if self.condition is None else self.condition[:n],
            model_condition=self.condition if self.model is None else self.model_condition,
            data_log_weight=_rows(self.data_log_weight, n),
            model_log_weight=_rows(self.model_log_weight, n),
        )


def _rows(log_weight: Tensor | None, n: int) -> Tensor | None:
    """The first n rows of log-weights, unless one row serves all."""
    if log_weight is None or log_weight.ndim < 2 or log_weight.shape[0] == 1:
        return log_weight
    return log_weight[:n]


class Drift(NamedTuple):
    """The two parts of a drift, tangent vectors at the samples, [n, *point]."""

    attraction: Tensor
    """Score of the data (or mean displacement to them)."""
    repulsion: Tensor
    """Score of the model (or mean displacement to it); it enters with a minus sign."""

    @property
    def field(self) -> Tensor:
        """The drift V = attraction - repulsion."""
        return self.attraction - self.repulsion


@runtime_checkable
class Field(Protocol):
    """A drift field: a manifold, and a map from batches to drifts without side effects.

    Two further methods are optional. `observe(batch)` updates the state of the field; training calls it
    once per step, after the field. `diagnostics(batch)` returns named numbers for the log, such as "ess".
    A field that passes batches on to another has an attribute `observes`, too: whether that one observes.

    A field whose drift depends on pairs alone can offer `separable(batch)`: whether the log-weights of that
    batch, which are -inf between samples and references of several drift problems, keep them apart.
    """

    @property
    def manifold(self) -> Manifold:
        """The geometry of the samples."""

    def __call__(self, batch: Batch) -> Drift:
        """Attraction and repulsion at the samples of the batch."""


def observes(field: Field) -> bool:
    """Whether a field, or one that it passes batches on to, changes by observing them."""
    return bool(getattr(field, "observes", hasattr(field, "observe")))


def observe(field: Field, batch: Batch) -> None:
    """Call `field.observe(batch)`, if the field observes."""
    if observes(field):
        cast("Any", field).observe(batch)


def separable(field: Field, batch: Batch) -> bool:
    """Whether a field has the drift of each of several problems in one batch; false if it does not say."""
    method = getattr(field, "separable", None)
    return False if method is None else method(batch)


def data_device(field: Field, device: torch.device) -> torch.device:
    """Device of a field's data: its attribute `data_device`, or `device` if it has none.

    A field whose data are indices into a memory-mapped file keeps them on the CPU.
    """
    return getattr(field, "data_device", device)


def modules_of(field: Field) -> list[nn.Module]:
    """Modules that hold the state of a field: the field itself, and those of the fields that it wraps.

    Wrapped fields are its attribute `field` and those in `fields`. Training moves the modules to its device
    and saves them in checkpoints.
    """
    inner = [*getattr(field, "fields", ()), *([field.field] if hasattr(field, "field") else [])]
    if isinstance(field, nn.Module):  # modules among the inner fields are its submodules
        inner = [part for part in inner if not isinstance(part, nn.Module)]
        return [field, *(module for part in inner for module in modules_of(part))]
    return [module for part in inner for module in modules_of(part)]


def diagnostics(field: Field, batch: Batch) -> dict[str, float]:
    """Diagnostics of a field on a batch by name; none if it has no such method."""
    method = getattr(field, "diagnostics", None)
    return {} if method is None else method(batch)
