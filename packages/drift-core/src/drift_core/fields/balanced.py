"""Reweighting of the data, so that every data point attracts an equal share of the samples."""

from dataclasses import replace
from typing import Protocol

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from drift_core.field import Batch, Drift, Field, diagnostics, observe
from drift_core.manifold import Manifold


class WeightedField(Field, Protocol):
    """A drift field that takes log-weights of the data and exposes its kernel, such as `KernelField`."""

    def log_kernel(self, x: Tensor, data: Tensor, progress: float) -> Tensor:
        """log k(x_i, y_j) at the smallest lengthscale, shape [n, m]."""


class BalancedField(nn.Module):
    """Reweights the data so that each attracts an equal share of the samples. The weights anneal to zero.

    A kernel's score does not depend on the mass of modes further away than its lengthscale: a mode without
    samples attracts none, and is never covered. Here data point j has the log-weight g_j that maximises

        mean_j g_j - mean_i log sum_j exp(g_j) k(x_i, y_j),

    the semi-dual of entropic optimal transport between samples and data with the cost -log k. Its gradient
    is 1/m minus the share of the samples that j attracts. Training maximises it by stochastic gradient ascent
    (Genevay, Cuturi, Peyre and Bach 2016, arXiv 1605.08527), so that batches may be far smaller than the
    data; Sinkhorn iterations within a batch would send a latent to another mode at every step. From the
    fraction `until` of training on, the weights anneal to zero, linearly over half of the remaining steps,
    and the field becomes the one it wraps: coverage first, then fidelity.

    Batches hold indices of data points (`resample(torch.arange(len(data)))`). Checkpoints save the weights.
    """

    data: Tensor
    """Data points, or tokens, [m, ...]."""
    potential: Tensor
    """Log-weights g of the data, shape [m], with mean 0."""
    share: Tensor
    """Running mean of the share of the samples that each data point attracts, times m."""

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
        """Factor of the log-weights, annealed from 1 to 0."""
        return min(1.0, max(0.0, 1 - 2 * (progress - self.until) / (1 - self.until)))

    def __call__(self, batch: Batch) -> Drift:
        """Drift of the wrapped field, with the data points of the indices `batch.data` reweighted."""
        weights = self.strength(batch.progress) * self.potential[batch.data]
        if batch.data_log_weight is not None:
            weights = weights + batch.data_log_weight
        return self.field(replace(batch, data=self.data[batch.data], data_log_weight=weights))

    def observe(self, batch: Batch) -> None:
        """Update the weights from the samples that repel, until annealing starts."""
        observe(self.field, replace(batch, data=self.data[batch.data]))
        if self.strength(batch.progress) == 1:
            model, _ = batch.negatives()
            logits = self.field.log_kernel(model, self.data[batch.data], batch.progress)
            self._learn(batch.data, logits + self.potential[batch.data])

    def diagnostics(self, batch: Batch) -> dict[str, float]:
        """Diagnostics of the wrapped field, without weights."""
        return diagnostics(self.field, replace(batch, data=self.data[batch.data]))

    def _learn(self, data: Int64[Tensor, " m"], logits: Float[Tensor, "k m"]) -> None:
        """Ascend the semi-dual: data that attract more than an equal share lose weight."""
        share = (logits.softmax(dim=1).mean(dim=0) * len(data)).to(self.share)
        # A batch smaller than the data carries little information about each point.
        pace = min(1.0, len(logits) / len(self.data))
        self.share[data] = self.share[data].lerp(share, pace / 2)
        # The logarithm makes half and double the share equal steps; the offset bounds the step at share 0.
        self.potential[data] -= self.rate * pace * (self.share[data] + 0.05).log()
        self.potential -= self.potential.mean()
