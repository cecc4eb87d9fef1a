"""Labelled data: points with their labels, and a memory bank of the latest of each class."""

from dataclasses import replace

import torch
from jaxtyping import Int64, Shaped
from torch import Tensor, nn

from drift_core.field import Batch, Drift, Field, diagnostics, observe, observes
from drift_core.manifold import Manifold


class LabelledField(nn.Module):
    """A field whose data carry labels: batches hold indices of data points (`resample(torch.arange(m))`).

    The wrapped field finds the points in `Batch.data` and their labels in `Batch.data_condition`.
    Raises ValueError unless there are as many labels as data.
    """

    data: Tensor
    """Data points, or tokens, [m, ...]."""
    labels: Tensor
    """Labels of the data, [m]."""

    def __init__(self, field: Field, data: Shaped[Tensor, "m ..."], labels: Int64[Tensor, " k"]) -> None:
        super().__init__()
        if labels.shape != data.shape[:1]:
            raise ValueError(f"{len(data)} data need as many labels, got {list(labels.shape)}")
        self.field = field
        self.register_buffer("data", data, persistent=False)
        self.register_buffer("labels", labels, persistent=False)

    @property
    def manifold(self) -> Manifold:
        """Geometry of the field."""
        return self.field.manifold

    def __call__(self, batch: Batch) -> Drift:
        """Drift of the wrapped field, with labelled data points."""
        return self.field(self._labelled(batch))

    @property
    def observes(self) -> bool:
        """Whether the wrapped field observes batches."""
        return observes(self.field)

    def observe(self, batch: Batch) -> None:
        """Let the wrapped field observe the batch with labelled data points."""
        observe(self.field, self._labelled(batch))

    def diagnostics(self, batch: Batch) -> dict[str, float]:
        """Diagnostics of the wrapped field, with labelled data points."""
        return diagnostics(self.field, self._labelled(batch))

    def _labelled(self, batch: Batch) -> Batch:
        return replace(batch, data=self.data[batch.data], data_condition=self.labels[batch.data])


class MemoryBank(nn.Module):
    """A ring buffer of data per class: a batch's data are joined by the latest of each class before it.

    A batch of many classes holds few data of each; the bank gives every class up to `capacity` more (the
    sample queue of Deng et al. 2026, arXiv 2602.04770, appendix A.8). Batches carry `data_condition`, labels
    in 0..num_classes-1. Checkpoints save the bank.

    Args:
        field: the wrapped field.
        data: data points [m, ...], of which the shape and the type of numbers are taken.
        num_classes: number of classes.
        capacity: data that are kept of each class.

    Raises:
        ValueError: num_classes or capacity below 1.
    """

    samples: Tensor
    """Data by class, newest last, [num_classes, capacity, ...]."""
    filled: Tensor
    """Number of data of each class, [num_classes]."""

    def __init__(self, field: Field, data: Tensor, *, num_classes: int, capacity: int) -> None:
        super().__init__()
        if min(num_classes, capacity) < 1:
            raise ValueError(f"num_classes and capacity must be at least 1, got {num_classes} and {capacity}")
        self.field = field
        self.register_buffer("samples", data.new_zeros(num_classes, capacity, *data.shape[1:]))
        self.register_buffer("filled", torch.zeros(num_classes, dtype=torch.long))

    @property
    def manifold(self) -> Manifold:
        """Geometry of the field."""
        return self.field.manifold

    def __call__(self, batch: Batch) -> Drift:
        """Drift of the wrapped field, with the data of the bank and of the batch."""
        return self.field(self._joined(batch))

    def observe(self, batch: Batch) -> None:
        """Add the data of the batch; the oldest of their classes are dropped."""
        observe(self.field, self._joined(batch))
        labels, capacity = labels_of(batch), self.samples.shape[1]
        for label in torch.unique(labels).tolist():
            new = batch.data[labels == label].to(self.samples)
            self.samples[label] = torch.cat([self.samples[label], new])[-capacity:]
            self.filled[label] = (self.filled[label] + len(new)).clamp(max=capacity)

    def diagnostics(self, batch: Batch) -> dict[str, float]:
        """Diagnostics of the wrapped field, with the data of the bank and of the batch."""
        return diagnostics(self.field, self._joined(batch))

    def _joined(self, batch: Batch) -> Batch:
        """The batch with the data of the bank."""
        slots = torch.arange(self.samples.shape[1], device=self.filled.device)
        label, slot = torch.nonzero(slots >= self.samples.shape[1] - self.filled[:, None], as_tuple=True)
        return replace(
            batch,
            data=torch.cat([batch.data, self.samples[label, slot]]),
            data_condition=torch.cat([labels_of(batch), label.to(batch.data.device)]),
        )


def labels_of(batch: Batch) -> Tensor:
    """Labels of the data. Raises ValueError if there are none."""
    if batch.data_condition is None:
        raise ValueError("the data of the batch have no labels; wrap the field in a LabelledField")
    return batch.data_condition
