"""Balanced attraction: every data point gets the same share of the samples, then fidelity takes over."""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from drift_core.drift import DriftTerms
from drift_core.manifold import Manifold


@runtime_checkable
class WeighedField(Protocol):
    """A drift field whose data may have weights; `DriftField` is one."""

    @property
    def manifold(self) -> Manifold:
        """The geometry of the points."""

    def terms(
        self,
        x: Tensor,
        data: Tensor,
        model: Tensor,
        self_index: Tensor | None,
        progress: float,
        *,
        data_log_weight: Tensor | None = None,
    ) -> DriftTerms:
        """Attraction of x to the weighed data and repulsion from the model."""

    def log_kernel(self, x: Tensor, data: Tensor, progress: float) -> Tensor:
        """log k(x_i, y_j) at the smallest lengthscale, shape [n, m]."""

    def effective_samples(self, x: Tensor, data: Tensor, progress: float) -> float:
        """Mean effective number of data points per query."""


class BalancedField(nn.Module):
    """A drift field whose data weigh what makes each attract the same share of the samples; then it fades.

    A kernel's score does not see the mass of modes further apart than its lengthscale: modes without
    samples attract nobody, and coverage never mends. Here datum j has the log-weight g_j that maximises

        mean_j g_j - mean_i log sum_j exp(g_j) k(x_i, y_j),

    the semi-dual of entropic optimal transport between samples and data with the cost -log k, whose
    gradient is 1/m minus the share of the samples that j attracts. It is followed by stochastic ascent over
    the steps of training (Genevay, Cuturi, Peyre and Bach 2016, arXiv 1605.08527), so that batches far
    smaller than the data balance them too, where Sinkhorn iterations within a batch would send a latent
    to another mode at every step. From the fraction `until` of training on the weights fade, linearly
    over half of what is left, and the field ends as the one it wraps: coverage first, then fidelity.

    Training hands it numbers of data (`resample(torch.arange(len(data)))`). The weights are part of its
    state, which checkpoints keep.
    """

    data: Tensor
    """Data points, or tokens, [m, ...]."""
    potential: Tensor
    """Log-weights g of the data, shape [m], with mean 0."""
    share: Tensor
    """Running mean of the share of the samples that each datum attracts, times m."""

    def __init__(self, field: WeighedField, data: Tensor, *, until: float = 0.7, rate: float = 0.3) -> None:
        super().__init__()
        if not 0 < until < 1 or not rate > 0:
            raise ValueError(f"until must lie in (0, 1) and rate be positive, got {until} and {rate}")
        self.field, self.until, self.rate = field, until, rate
        self.register_buffer("data", data, persistent=False)
        self.register_buffer("potential", torch.zeros(len(data)))
        self.register_buffer("share", torch.ones(len(data)))

    @property
    def manifold(self) -> Manifold:
        """Geometry of the field."""
        return self.field.manifold

    def strength(self, progress: float) -> float:
        """Factor of the log-weights: 1, fading to 0."""
        return min(1.0, max(0.0, 1 - 2 * (progress - self.until) / (1 - self.until)))

    def terms(
        self,
        x: Float[Tensor, "n ..."],
        data: Int64[Tensor, " m"],
        model: Float[Tensor, "k ..."],
        self_index: Int64[Tensor, " n"] | None,
        progress: float = 1.0,
    ) -> DriftTerms:
        """Terms of the field towards the numbered data; the weights learn from the pool `model`."""
        points, strength = self.data[data], self.strength(progress)
        weights = strength * self.potential[data]
        terms = self.field.terms(x, points, model, self_index, progress, data_log_weight=weights)
        if strength == 1:
            self._learn(data, self.field.log_kernel(model, points, progress) + weights)
        return terms

    def _learn(self, data: Int64[Tensor, " m"], logits: Float[Tensor, "k m"]) -> None:
        """Ascend the semi-dual: data that attract more than their share lose weight."""
        share = logits.softmax(dim=1).mean(dim=0) * len(data)
        # A batch smaller than the data says little about each of them.
        pace = min(1.0, len(logits) / len(self.data))
        self.share[data] = self.share[data].lerp(share, pace / 2)
        # The logarithm treats halves and doubles alike; the offset bounds the step of what attracts nobody.
        self.potential[data] -= self.rate * pace * (self.share[data] + 0.05).log()
        self.potential -= self.potential.mean()

    def effective_samples(
        self, x: Float[Tensor, "n ..."], data: Int64[Tensor, " m"], progress: float = 1.0
    ) -> float:
        """Mean effective number of data points per query, unweighed."""
        return self.field.effective_samples(x, self.data[data], progress)
