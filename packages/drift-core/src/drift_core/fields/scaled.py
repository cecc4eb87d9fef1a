"""Scales of fields: unit root mean square, and lengthscales in units of the batch."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from drift_core.field import Batch, Drift, Field, diagnostics, observe, observes
from drift_core.fields.kernel import KernelField
from drift_core.lengthscale import Lengthscales
from drift_core.manifold import Manifold
from drift_core.manifold.numerics import safe_inverse
from drift_core.score import effective_sample_size

_PROBES = 256
"""Samples on which the effective sample size is measured."""
_OCTAVE, _OCTAVES = 8, 16
"""Steps of a held lengthscale per factor of 2, and factors of 2 that it may move by."""


@dataclass(frozen=True)
class NormalizedField:
    """A field divided by its root mean square length over all samples, sqrt(mean_i |V(x_i)|^2).

    A sum of normalised fields at several lengthscales weighs them equally, however short their scores are
    (Deng et al. 2026, arXiv 2602.04770, equations 23-25). The noise of a batch is normalised, too: the field
    does not get shorter as samples approach the data, so that the learning rate must decay.
    """

    field: Field

    @property
    def manifold(self) -> Manifold:
        """Geometry of the field."""
        return self.field.manifold

    def __call__(self, batch: Batch) -> Drift:
        """Attraction and repulsion, both divided by the root mean square of their difference."""
        drift = self.field(batch)
        whole, _ = batch.pooled()
        v = (drift if whole is batch else self.field(whole)).field
        square = self.manifold.inner(whole.x, v, v).mean()
        return Drift(*(part * safe_inverse(square.clamp_min(0).sqrt()) for part in drift))

    @property
    def observes(self) -> bool:
        """Whether the wrapped field observes batches."""
        return observes(self.field)

    def observe(self, batch: Batch) -> None:
        """Let the wrapped field observe the batch."""
        observe(self.field, batch)

    def diagnostics(self, batch: Batch) -> dict[str, float]:
        """Diagnostics of the wrapped field."""
        return diagnostics(self.field, batch)


Unit = Callable[[KernelField, Batch], float]
"""Maps a field and a batch to a length, the unit of the field's lengthscales."""


@dataclass(frozen=True)
class AdaptiveField:
    """A kernel field whose lengthscales are in units of each batch, `mean_distance` or `HeldSampleSize`.

    Both sides have the same kernel, so that equal clouds still exert no drift on one another.
    """

    field: KernelField
    unit: Unit

    @property
    def manifold(self) -> Manifold:
        """Geometry of the field."""
        return self.field.manifold

    def at(self, batch: Batch) -> KernelField:
        """The field with the lengthscales that it has for the batch."""
        unit, scales = self.unit(self.field, batch), self.field.lengthscales.at(batch.progress)
        return replace(self.field, lengthscales=Lengthscales(tuple(unit * scale for scale in scales)))

    def __call__(self, batch: Batch) -> Drift:
        """Drift of the field at those lengthscales."""
        return self.at(batch)(batch)

    def diagnostics(self, batch: Batch) -> dict[str, float]:
        """Diagnostics of the field, and its smallest lengthscale."""
        field = self.at(batch)
        return {**field.diagnostics(batch), "lengthscale": min(field.lengthscales.start)}


def mean_distance(field: KernelField, batch: Batch) -> float:
    """Mean distance of the samples from data and other samples (Deng et al. 2026, equation 21).

    Lengthscales in this unit depend neither on the dimension of the points nor on the size of features.
    Symmetric in data and samples.
    """
    whole, _ = batch.pooled()
    model, own = whole.negatives()
    total = sum(_total_distance(field.manifold, whole.x, y) for y in (batch.data, model))
    pairs = len(whole.x) * (len(batch.data) + len(model) - (own is not None))
    return float(total) / pairs


@dataclass(frozen=True)
class HeldSampleSize:
    """The length at which samples see `size` data points on average, in effect (`effective_sample_size`).

    Searched in steps of 2^(1/8), up to 2^16 from the lengthscale of the field, on at most 256 samples. The
    lengthscale falls as samples approach the data, which takes the place of annealing; where samples have
    collapsed, or data are as far from one another as from the samples, it is at an end of that range.

    Raises ValueError for a size below 1.
    """

    size: float

    def __post_init__(self) -> None:
        if not self.size >= 1:
            raise ValueError(f"the effective sample size to hold must be at least 1, got {self.size}")

    def __call__(self, field: KernelField, batch: Batch) -> float:
        """The largest factor of the lengthscales at which samples see at most `size` data points."""
        whole, _ = batch.pooled()
        probes = whole.x[:: max(1, len(whole.x) // _PROBES)][:_PROBES]
        scale = min(field.lengthscales.at(batch.progress))
        weight = None if batch.data_log_weight is None else batch.data_log_weight.reshape(1, -1)
        low, high = -_OCTAVE * _OCTAVES, _OCTAVE * _OCTAVES
        while high - low > 1:
            middle = (low + high) // 2
            kernel = field.kernel(scale * 2 ** (middle / _OCTAVE))
            sizes = effective_sample_size(field.manifold, kernel, probes, batch.data, log_weight=weight)
            low, high = (middle, high) if float(sizes.mean()) <= self.size else (low, middle)
        return float(2 ** (low / _OCTAVE))


def _total_distance(manifold: Manifold, x: Tensor, y: Tensor) -> Tensor:
    """Sum of the distances between all pairs, in blocks."""
    return torch.stack(
        [manifold.cdist(part, y).sum(dtype=torch.float64) for part in torch.split(x, 1024)]
    ).sum()
