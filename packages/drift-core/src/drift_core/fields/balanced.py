"""Reweighted data: at first every data point attracts an equal share of the samples."""

from dataclasses import replace
from typing import Protocol

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from drift_core.field import Batch, Drift, Field, diagnostics, observe
from drift_core.manifold import Manifold


class WeightedField(Field, Protocol):
    """A drift field whose data may have log-weights, and that tells its kernel; `KernelField` is one."""

    def log_kernel(self, x: Tensor, data: Tensor, progress: float) -> Tensor:
        """log k(x_i, y_j) at the smallest lengthscale, shape [n, m]."""


class BalancedField(nn.Module):
    """Reweights the data so that each attracts an equal share of the samples. The weights anneal to zero.

    A kernel's score does not see the mass of modes further apart than its lengthscale: modes without
    samples attract nobody, and coverage never mends. Here datum j has the log-weight g_j that maximises

        mean_j g_j - mean_i log sum_j exp(g_j) k(x_i, y_j),

    the semi-dual of entropic optimal transport between samples and data with the cost -log k, whose
    gradient is 1/m minus the share of the samples that j attracts. It is followed by stochastic ascent over
    the steps of training (Genevay, Cuturi, Peyre and Bach 2016, arXiv 1605.08527), so that batches far
    smaller than the data balance them too, where Sinkhorn iterations within a batch would send a latent
    to another mode at every step. From the fraction `until` of training on the weights fade, linearly
    over half of what is left, and the field ends as the one it wraps: coverage first, then fidelity.

    Batches hold indices of data (`resample(torch.arange(len(data)))`). The weights are part of its
    state, which checkpoints keep.
    """

    data: Tensor
    """Data points, or tokens, [m, ...]."""
    potential: Tensor
    """Log-weights g of the data, shape [m], with mean 0."""
    share: Tensor
    """Running mean of the share of the samples that each datum attracts, times m."""

    def __init__(self, field: WeightedField, data: Tensor, *, until: float = 0.7, rate: float = 0.3) -> None:
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

    def __call__(self, batch: Batch) -> Drift:
        """Drift of the field with the data of the indices `batch.data`, reweighted."""
        weights = self.strength(batch.progress) * self.potential[batch.data]
        if batch.data_log_weight is not None:
            weights = weights + batch.data_log_weight
        return self.field(replace(batch, data=self.data[batch.data], data_log_weight=weights))

    def observe(self, batch: Batch) -> None:
        """Learn the weights from the samples that repel, until they start to fade."""
        observe(self.field, replace(batch, data=self.data[batch.data]))
        if self.strength(batch.progress) == 1:
            model, _ = batch.negatives()
            logits = self.field.log_kernel(model, self.data[batch.data], batch.progress)
            self._learn(batch.data, logits + self.potential[batch.data])

    def diagnostics(self, batch: Batch) -> dict[str, float]:
        """Those of the field, without weights."""
        return diagnostics(self.field, replace(batch, data=self.data[batch.data]))

    def _learn(self, data: Int64[Tensor, " m"], logits: Float[Tensor, "k m"]) -> None:
        """Ascend the semi-dual: data that attract more than their share lose weight."""
        share = (logits.softmax(dim=1).mean(dim=0) * len(data)).to(self.share)
        # A batch smaller than the data says little about each of them.
        pace = min(1.0, len(logits) / len(self.data))
        self.share[data] = self.share[data].lerp(share, pace / 2)
        # The logarithm treats halves and doubles alike; the offset bounds the step of what attracts nobody.
        self.potential[data] -= self.rate * pace * (self.share[data] + 0.05).log()
        self.potential -= self.potential.mean()
