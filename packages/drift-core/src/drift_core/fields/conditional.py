"""Fields of conditional generators: labelled data, memory banks, a drift problem per condition, guidance."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn

from drift_core.field import Batch, Drift, Field, diagnostics, observe
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
        labels, capacity = _labels(batch), self.samples.shape[1]
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
            data_condition=torch.cat([_labels(batch), label.to(batch.data.device)]),
        )


def _labels(batch: Batch) -> Tensor:
    """Labels of the data. Raises ValueError if there are none."""
    if batch.data_condition is None:
        raise ValueError("the data of the batch have no labels; wrap the field in a LabelledField")
    return batch.data_condition


@dataclass(frozen=True)
class ConditionalField:
    """One drift problem per condition: samples of a class meet data and samples of that class alone.

    Conditions are class labels [n] or, for guided generators, rows (label, strength) [n, 2]; batches carry
    `condition`, `model_condition` and, with the labels of the data, `data_condition`. Samples repel one
    another if their conditions are equal, so that a step should hold few distinct ones, each many times
    (`class_conditions`).

    Guidance: at strength a >= 1 data of all classes repel, too, and have (a - 1) times the total weight of
    the samples that repel (Deng et al. 2026, arXiv 2602.04770, appendix A.7). At a = 1 there are none. With
    the smoothed densities p_c of the class, p of all data and q of the samples, the score of the mixture
    (q + (a - 1) p) / a is r s_q + (1 - r) s_p, where r(x) = q / (q + (a - 1) p) is the share of the samples
    at x (`merge_scores`). Hence, for the kernel gradient,

        V = s_c - r s_q - (1 - r) s_p = r [s_c + (b - 1) (s_c - s_p) - s_q],  b(x) = 1 / r(x).

    Samples follow the guided score s_c + (b - 1) (s_c - s_p) of local strength b = 1 + (a - 1) p(x) / q(x),
    which is a where samples are as dense as all data. V vanishes where q = a p_c - (a - 1) p; where that
    is negative no samples remain. A generator whose input is a needs one evaluation at any strength.

    Raises ValueError for a class without data in a batch, and for batches without conditions.
    """

    field: Field

    @property
    def manifold(self) -> Manifold:
        """Geometry of the field."""
        return self.field.manifold

    def __call__(self, batch: Batch) -> Drift:
        """Drift of the wrapped field for the samples of each condition in turn."""
        parts = [torch.zeros_like(batch.x) for _ in Drift._fields]
        for rows, problem in _problems(batch):
            for whole, part in zip(parts, self.field(problem), strict=True):
                whole[rows] = part
        return Drift(*parts)

    def observe(self, batch: Batch) -> None:
        """Let the wrapped field observe the problem of each condition."""
        for _, problem in _problems(batch):
            observe(self.field, problem)

    def diagnostics(self, batch: Batch) -> dict[str, float]:
        """Diagnostics of the wrapped field, averaged over the samples."""
        found: dict[str, float] = {}
        for rows, problem in _problems(batch):
            for name, value in diagnostics(self.field, problem).items():
                found[name] = found.get(name, 0.0) + value * len(rows) / len(batch.x)
        return found


def _problems(batch: Batch) -> list[tuple[Tensor, Batch]]:
    """The rows of each distinct condition, and the batch of their drift problem."""
    if batch.condition is None:
        raise ValueError("the samples of the batch have no conditions; give `train` a `sample_condition`")
    conditions = batch.condition.reshape(len(batch.x), -1)
    _, group = torch.unique(conditions, dim=0, return_inverse=True)
    rows = [torch.nonzero(group == i)[:, 0] for i in range(int(group.max()) + 1)]
    return [(some, _problem(batch, conditions[some[0]], some)) for some in rows]


def _problem(batch: Batch, condition: Tensor, rows: Tensor) -> Batch:
    """The drift problem of the samples in some rows, all of one condition."""
    model, own = batch.negatives()
    everyone = batch.condition if batch.model is None else batch.model_condition
    assert everyone is not None
    (there,) = torch.nonzero((everyone.reshape(len(model), -1) == condition).all(1), as_tuple=True)
    (data,) = torch.nonzero(_labels(batch) == condition[0], as_tuple=True)
    if not len(data):
        raise ValueError(f"no data of class {int(condition[0])} in the batch; draw more, or use a MemoryBank")
    place = there.new_full((len(model) + 1,), -1)
    place[there] = torch.arange(len(there), device=there.device)
    problem = replace(
        batch,
        x=batch.x[rows],
        data=batch.data[data],
        model=model[there],
        self_index=None if own is None else place[own[rows]],
        condition=None,
        model_condition=None,
        data_condition=None,
        data_log_weight=_columns(batch.data_log_weight, data),
        model_log_weight=_columns(batch.model_log_weight, there),
        num_generated=len(there),
    )
    strength = float(condition[1]) if len(condition) > 1 else 1.0
    return problem if strength == 1 else _guided(problem, batch, strength)


def _guided(problem: Batch, batch: Batch, strength: float) -> Batch:
    """The problem with all data of the batch among what repels."""
    assert problem.model is not None
    if not strength > 1:
        raise ValueError(f"the strength of guidance must be at least 1, got {strength}")
    others = len(problem.model) - (problem.self_index is not None)
    own = _per_reference(problem.model_log_weight, problem.model)
    data = _per_reference(batch.data_log_weight, problem.model.new_zeros(len(batch.data)))
    total = own.logsumexp(0) + math.log(max(others, 1) / len(own))  # of all but the sample itself
    weight = data - data.logsumexp(0) + total + math.log(strength - 1)
    return replace(
        problem,
        model=torch.cat([problem.model, batch.data.to(problem.model)]),
        model_log_weight=torch.cat([own, weight])[None],
    )


def _columns(log_weight: Tensor | None, columns: Tensor) -> Tensor | None:
    """Log-weights of some of the references."""
    return None if log_weight is None else _row(log_weight)[columns]


def _per_reference(log_weight: Tensor | None, references: Tensor) -> Tensor:
    """Log-weights, one a reference, in the type of the references."""
    return references.new_zeros(len(references)) if log_weight is None else _row(log_weight).to(references)


def _row(log_weight: Tensor) -> Tensor:
    """Log-weights [m] or [1, m] as [m]. Raises ValueError for others."""
    if log_weight.ndim == 2 and len(log_weight) > 1:
        raise ValueError("a conditional field needs one log-weight a reference, not one a pair")
    return log_weight.reshape(-1)


def class_conditions(
    num_classes: int, per_step: int, *, largest: float = 1.0, exponent: float = 1.0
) -> Callable[[int, torch.Generator], Tensor]:
    """Sampler of conditions for `ConditionalField`: `per_step` random ones a step, in runs of equal length.

    Conditions are labels [n] or, if largest > 1, (label, strength) [n, 2]; strengths have a density
    proportional to strength^-exponent between 1 and `largest`.

    Raises:
        ValueError: numbers below 1.
    """
    if min(num_classes, per_step) < 1 or not largest >= 1:
        raise ValueError(
            "num_classes, per_step and largest must be at least 1, "
            f"got {num_classes}, {per_step} and {largest}"
        )

    def draw(n: int, generator: torch.Generator) -> Tensor:
        rounds = -(-per_step // num_classes)
        labels = torch.cat([torch.randperm(num_classes, generator=generator) for _ in range(rounds)])
        run = torch.arange(n) * per_step // n
        if largest == 1:
            return labels[run]
        strength = power_law(torch.rand(per_step, generator=generator), largest, exponent)
        return torch.stack([labels[:per_step].to(strength), strength], dim=1)[run]

    return draw


def power_law(u: Float[Tensor, "*n"], largest: float, exponent: float) -> Float[Tensor, "*n"]:
    """Map uniform numbers to [1, largest] with density proportional to x^-exponent, by its inverse."""
    power = 1 - exponent
    if power == 0:
        return largest**u
    return (1 + u * (largest**power - 1)) ** (1 / power)
