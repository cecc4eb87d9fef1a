"""Fields of conditional generators: a drift problem per condition, and guidance."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from drift_core.field import Batch, Drift, Field, diagnostics, observe, observes, separable
from drift_core.fields.problems import drift_problems
from drift_core.manifold import Manifold


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

    Small classes are evaluated together, in one pass over all pairs with log-weights of -inf between classes,
    where the wrapped field is `separable`: a `KernelField`, and sums and pullbacks of such; not under both
    guidance and a coupling. Other fields, of statistics of the whole batch, see one class after another.

    Raises ValueError for a class without data in a batch, and for batches without conditions.
    """

    field: Field

    @property
    def manifold(self) -> Manifold:
        """Geometry of the field."""
        return self.field.manifold

    def __call__(self, batch: Batch) -> Drift:
        """Drift of the wrapped field for the samples of each condition."""
        parts = [torch.zeros_like(batch.x) for _ in Drift._fields]
        for rows, problem in self._problems(batch):
            for whole, part in zip(parts, self.field(problem), strict=True):
                whole[rows] = part
        return Drift(*parts)

    @property
    def observes(self) -> bool:
        """Whether the wrapped field observes batches."""
        return observes(self.field)

    def observe(self, batch: Batch) -> None:
        """Let the wrapped field observe the problem of each condition."""
        for _, problem in self._problems(batch):
            observe(self.field, problem)

    def diagnostics(self, batch: Batch) -> dict[str, float]:
        """Diagnostics of the wrapped field, averaged over the samples."""
        found: dict[str, float] = {}
        for rows, problem in self._problems(batch):
            for name, value in diagnostics(self.field, problem).items():
                found[name] = found.get(name, 0.0) + value * len(rows) / len(batch.x)
        return found

    def _problems(self, batch: Batch) -> Iterator[tuple[Tensor, Batch]]:
        """Problems side by side, if the wrapped field can tell them apart, else one by one."""
        return drift_problems(batch, partial(separable, self.field))


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
