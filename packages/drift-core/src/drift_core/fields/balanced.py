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

    Unbounded, the weight of a datum that no sample reaches grows until that datum attracts samples from
    anywhere. The ascent is therefore projected onto |g_j - mean(g)| <= limit / 2, and no sample prefers j to
    a datum l by more than exp(limit) k(x_i, y_j) / k(x_i, y_l). This is the dual of a penalty in place of the
    constraint of equal shares s_j: with u_j = 1/m - s_j, which sum to zero, linear programming gives

        max {sum_j g_j u_j : |g_j| <= limit / 2, sum_j g_j = 0} = limit / 2 sum_j |s_j - median(s)|,

    added to the cost of transport (with total variation, the scaling iterations of Chizat, Peyre, Schmitzer
    and Vialard 2018, arXiv 1607.05816, clamp potentials in the same way). Data strictly within the bound
    still attract equal shares, those at its upper end less. An optimum within the bound does not change:
    there g_j = -log mean_i k(x_i, y_j) / S_i, S_i = sum_l exp(g_l) k(x_i, y_l), up to a constant, hence
    |g_j - g_l| <= max_i |log k(x_i, y_j) - log k(x_i, y_l)|. That bound alone is too loose: at a lengthscale
    of 0.15 one letter of a sequence is 10 to 15 nats.

    Batches hold indices of data points (`resample(torch.arange(len(data)))`). Checkpoints save the weights.
    """

    data: Tensor
    """Data points, or tokens, [m, ...]."""
    potential: Tensor
    """Log-weights g of the data in nats, shape [m], between -limit / 2 and limit / 2."""
    share: Tensor
    """Running mean of the share of the samples that each data point attracts, times m."""

    def __init__(
        self,
        field: WeightedField,
        data: Tensor,
        *,
        until: float = 0.7,
        rate: float = 0.3,
        limit: float = 10.0,
    ) -> None:
        super().__init__()
        if not 0 < until < 1 or not rate > 0:
            raise ValueError(f"until must lie in (0, 1) and rate be positive, got {until} and {rate}")
        if not limit > 0:
            raise ValueError(f"the limit of the log-weights must be positive, got {limit}")
        self.field, self.until, self.rate, self.limit = field, until, rate, limit
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
        # Clamped after they are centred: a constant does not change the field, and the mean stays near 0.
        self.potential -= self.potential.mean()
        self.potential.clamp_(-self.limit / 2, self.limit / 2)
