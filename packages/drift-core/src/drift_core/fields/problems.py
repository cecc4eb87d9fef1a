"""Drift problems of a batch: the samples of a condition, with the samples and the data that they meet."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from drift_core.field import Batch
from drift_core.fields.labelled import labels_of

_BETWEEN_CPU = 2**13
"""Pairs that take a CPU about as long as the overhead of a call of a field."""
_BETWEEN_CUDA = 2**20
"""The same for a GPU."""


@dataclass(frozen=True)
class _Members:
    """Rows that belong to problems, problem by problem."""

    row: Tensor
    problem: Tensor
    ends: Sequence[int]
    """Number of members of all problems before each, and of all."""

    def of(self, first: int, end: int) -> "_Members":
        """Members of the problems first..end-1."""
        part = slice(self.ends[first], self.ends[end])
        return _Members(self.row[part], self.problem[part], ())

    def count(self, first: int, end: int) -> int:
        """How many these are."""
        return self.ends[end] - self.ends[first]


@dataclass(frozen=True)
class _Problems:
    """Distinct conditions of the samples of a batch, in ascending order, and who meets in each."""

    batch: Batch
    strengths: Sequence[float]
    """Strength of guidance in each problem."""
    x: _Members
    model: _Members
    data: _Members

    def guided(self, first: int, end: int) -> bool:
        """Whether all data repel in any of the problems first..end-1."""
        return any(strength != 1 for strength in self.strengths[first:end])

    def pairs(self, first: int, end: int) -> int:
        """Pairs of the samples of the problems first..end-1 with their references."""
        references = self.data.count(first, end) + self.model.count(first, end)
        return self.x.count(first, end) * (references + self.guided(first, end) * len(self.batch.data))

    def between(self, first: int, last: int) -> int:
        """Further pairs of different problems, if problem `last` joins first..last-1."""
        return self.pairs(first, last + 1) - self.pairs(first, last) - self.pairs(last, last + 1)


def drift_problems(batch: Batch, separable: Callable[[Batch], bool]) -> Iterator[tuple[Tensor, Batch]]:
    """The drift problem of each distinct condition of a batch, and its rows of the batch.

    Problems are joined to one batch, whose log-weights are -inf between samples and references of different
    ones, as long as these pairs take less time than another call, and if the joined batch is `separable`.

    Raises:
        ValueError: no conditions, no labels, a class without data, a strength below 1.
    """
    problems = _problems_of(batch)
    most = _BETWEEN_CUDA if batch.x.is_cuda else _BETWEEN_CPU
    first, number = 0, len(problems.strengths)
    for end in range(1, number + 1):
        if end == number or problems.between(first, end) > most:
            joined, alone = _joined(problems, first, end), range(first, end)
            if len(alone) == 1 or separable(joined):
                yield problems.x.of(first, end).row, joined
            else:
                yield from ((problems.x.of(i, i + 1).row, _joined(problems, i, i + 1)) for i in alone)
            first = end


def _problems_of(batch: Batch) -> _Problems:
    if batch.condition is None:
        raise ValueError("the samples of the batch have no conditions; give `train` a `sample_condition`")
    conditions = batch.condition.reshape(len(batch.x), -1)
    everyone = conditions
    if batch.model is not None:
        assert batch.model_condition is not None
        everyone = batch.model_condition.reshape(len(batch.model), -1)
    distinct = torch.unique(conditions, dim=0)
    data = _members(distinct[:, :1], labels_of(batch)[:, None])
    strengths = []
    for i, (label, *strength) in enumerate(distinct.tolist()):
        if data.count(i, i + 1) == 0:
            raise ValueError(f"no data of class {int(label)} in the batch; draw more, or use a MemoryBank")
        strengths.append(strength[0] if strength else 1.0)
        if not strengths[i] >= 1:
            raise ValueError(f"the strength of guidance must be at least 1, got {strengths[i]}")
    return _Problems(batch, strengths, _members(distinct, conditions), _members(distinct, everyone), data)


def _members(conditions: Tensor, rows: Tensor) -> _Members:
    """Rows [n, k] that equal each of the conditions [c, k]."""
    belongs = (conditions[:, None] == rows).all(2)
    problem, row = torch.nonzero(belongs, as_tuple=True)
    return _Members(row, problem, [0, *belongs.sum(1).cumsum(0).tolist()])


def _joined(problems: _Problems, first: int, end: int) -> Batch:
    """The batch of the problems first..end-1."""
    batch = problems.batch
    x, there, data = (part.of(first, end) for part in (problems.x, problems.model, problems.data))
    model, own = batch.negatives()
    if own is not None:
        place = there.row.new_full((len(model) + 1,), -1)
        place[there.row] = torch.arange(len(there.row), device=there.row.device)
        own = place[own[x.row]]
    which = x.problem if end - first > 1 else x.problem[:1]  # one row of log-weights serves one problem
    joined = replace(
        batch,
        x=batch.x[x.row],
        data=batch.data[data.row],
        model=model[there.row],
        self_index=own,
        condition=None,
        model_condition=None,
        data_condition=None,
        data_log_weight=_log_weight(batch.data_log_weight, data, which, batch.x),
        model_log_weight=_log_weight(batch.model_log_weight, there, which, batch.x),
        num_generated=len(there.row),
    )
    return _guided(joined, problems, there, which) if problems.guided(first, end) else joined


def _guided(joined: Batch, problems: _Problems, there: _Members, which: Tensor) -> Batch:
    """Problems with all data of the batch among what repels."""
    batch, like = problems.batch, joined.x
    assert joined.model is not None
    own = joined.model_log_weight
    own = like.new_zeros(1, len(joined.model)) if own is None else own.to(like).reshape(len(which), -1)
    number = (which[:, None] == there.problem).sum(1, keepdim=True).to(like)
    others = (number - int(joined.self_index is not None)).clamp_min(1)
    total = own.logsumexp(1, keepdim=True) + (others / number).log()  # of all but the sample itself
    data = like.new_zeros(len(batch.data)) if batch.data_log_weight is None else _row(batch.data_log_weight)
    strength = like.new_tensor(problems.strengths)[which, None]
    weight = (data.to(like) - data.to(like).logsumexp(0)) + total + (strength - 1).log()
    return replace(
        joined,
        model=torch.cat([joined.model, batch.data.to(joined.model)]),
        model_log_weight=torch.cat([own, weight], dim=1),
    )


def _log_weight(
    log_weight: Tensor | None, references: _Members, which: Tensor, like: Tensor
) -> Tensor | None:
    """Log-weights of references, [m] in one problem, and [n, m] for the samples of several."""
    weight = None if log_weight is None else _row(log_weight)[references.row]
    if len(which) == 1:
        return weight
    apart = which[:, None] != references.problem
    known = like.new_zeros(1) if weight is None else weight.to(like)
    return known.expand(apart.shape).masked_fill(apart, -torch.inf)


def _row(log_weight: Tensor) -> Tensor:
    """Log-weights [m] or [1, m] as [m]. Raises ValueError for others."""
    if log_weight.ndim == 2 and len(log_weight) > 1:
        raise ValueError("a conditional field needs one log-weight a reference, not one a pair")
    return log_weight.reshape(-1)
