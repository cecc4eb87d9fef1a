"""What a drift field is: attraction and repulsion at the samples of a batch."""

from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from drift_core.manifold import Manifold


@dataclass(frozen=True)
class Batch:
    """What a drift field is evaluated on: samples, data, and where in training they are."""

    x: Tensor
    """Samples at which the field is wanted, [n, *point]."""
    data: Tensor
    """Data that attract, [m, *point], or whatever identifies them to the field: tokens, indices."""
    model: Tensor | None = None
    """Samples that repel, [k, *point]; None: x, each excluded from its own repulsion."""
    self_index: Tensor | None = None
    """For each x the row of `model` that it is and that does not repel it, [n]; outside 0..k-1: none."""
    step: int = 0
    """Training step, from 0: fields that draw random numbers seed them by it."""
    progress: float = 1.0
    """Fraction of training that is over, by which lengthscales anneal."""
    condition: Tensor | None = None
    """Conditions under which x were generated, [n, ...]."""
    model_condition: Tensor | None = None
    """Conditions under which the samples that repel were, [k, ...]."""
    data_log_weight: Tensor | None = None
    """Log-weights of the data, broadcast to [n, m]; -inf excludes a pair."""
    model_log_weight: Tensor | None = None
    """Log-weights of the samples that repel, broadcast to [n, k]."""

    def negatives(self) -> tuple[Tensor, Tensor | None]:
        """Samples that repel, and for each x its own row among them."""
        if self.model is not None:
            return self.model, self.self_index
        return self.x, torch.arange(len(self.x), device=self.x.device)

    def head(self, n: int) -> "Batch":
        """The same batch for its first n samples alone."""
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
    """The first n rows of log-weights, unless all rows share one."""
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
    """A drift field: a manifold, and the drift of a batch. Evaluating it changes nothing.

    Two further methods are optional. `observe(batch)` may learn from a batch or remember it; training calls
    it once a step, after the field. `diagnostics(batch)` returns numbers for the log by name, such as "ess".
    """

    @property
    def manifold(self) -> Manifold:
        """The geometry of the samples."""

    def __call__(self, batch: Batch) -> Drift:
        """Attraction and repulsion at the samples of the batch."""


def observe(field: Field, batch: Batch) -> None:
    """Let a field learn from a batch, if it is one that does."""
    method = getattr(field, "observe", None)
    if method is not None:
        method(batch)


def data_device(field: Field, device: torch.device) -> torch.device:
    """Where a field reads its data: `device`, but for fields of data that stay on the CPU.

    Such a field has an attribute `data_device`: its data are indices into what is mapped into memory.
    """
    return getattr(field, "data_device", device)


def modules_of(field: Field) -> list[nn.Module]:
    """Parts of a field that learn or remember, itself included, through the fields that it wraps.

    Those are the fields that it has as `field` or in `fields`; training moves the parts to its device and
    keeps them in checkpoints.
    """
    if isinstance(field, nn.Module):
        return [field]
    inner = [*getattr(field, "fields", ()), *([field.field] if hasattr(field, "field") else [])]
    return [module for part in inner for module in modules_of(part)]


def diagnostics(field: Field, batch: Batch) -> dict[str, float]:
    """What a field has to say about a batch, for the log."""
    method = getattr(field, "diagnostics", None)
    return {} if method is None else method(batch)
