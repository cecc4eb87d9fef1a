"""The drift field as the public code of the original method computes it, as a baseline.

Deng et al. 2026 (arXiv 2602.04770), algorithm 2 and appendix A.6, with the constants of the code:
distances divided by their mean, 100 added to that of a sample from itself, and affinities of 1e-3 at least.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from drift_core.field import Batch, Drift
from drift_core.manifold import Manifold

_SELF = 100.0
_LEAST_AFFINITY = 1e-6
_LEAST_FORCE = 1e-8


@dataclass(frozen=True)
class OriginalField:
    """Drift field of the original method; on a Euclidean space it is that of its public code.

    The softmax runs over positives and negatives jointly, and is combined by a geometric mean with a softmax
    over the generated samples. Attraction is multiplied by the row's total affinity to negatives, repulsion
    by that to positives. The field at each temperature is divided by its root mean square, and they are
    summed. Without the least affinity each is `KernelField(manifold, Laplace, ..., "displacement",
    coupling=geometric_mean)` times a positive number per sample. Memory is quadratic.

    Log-weights of the batch multiply affinities, as the code's weights do; one a reference. Steps of the
    code have step_size = 1.
    """

    manifold: Manifold
    temperatures: tuple[float, ...] = (0.02, 0.05, 0.2)
    """Lengthscales, in units of the mean distance."""

    def __call__(self, batch: Batch) -> Drift:
        """Attraction and repulsion at the samples of the batch."""
        whole, rows = batch.pooled()
        model, own = whole.negatives()
        sides = [self.manifold.pairs(whole.x, references) for references in (model, whole.data)]
        r = torch.cat([side.dist for side in sides], dim=1)
        weight = torch.cat(
            [_weights(whole.model_log_weight, model), _weights(whole.data_log_weight, batch.data)]
        ).to(r)
        unit = (r @ weight).mean() / weight.sum()
        distance = r / unit
        if own is not None:
            distance[torch.arange(len(own)), own] += _SELF
        gain = whole.x[0].numel() ** 0.5 / unit
        total = [torch.zeros_like(whole.x) for _ in Drift._fields]
        for temperature in self.temperatures:
            affinity = _affinity(distance / -temperature).mul_(weight)
            negative, positive = torch.split(affinity, [len(model), len(whole.data)], dim=1)
            repulsion, attraction = (
                gain * side.direction_sum(part * side.dist)
                for side, part in zip(sides, (negative, positive), strict=True)
            )
            parts = _rowwise(attraction, negative.sum(1)), _rowwise(repulsion, positive.sum(1))
            square = (parts[0] - parts[1]).square().mean().clamp_min(_LEAST_FORCE)
            total = [sum_ + part / square.sqrt() for sum_, part in zip(total, parts, strict=True)]
        return Drift(*((part / gain)[rows] for part in total))


def _affinity(logits: Tensor) -> Tensor:
    """Geometric mean of the softmax over references and over samples, [n, m], but for its least value."""
    return logits.softmax(1).mul_(logits.softmax(0)).clamp_min_(_LEAST_AFFINITY).sqrt_()


def _rowwise(vectors: Tensor, factors: Tensor) -> Tensor:
    return vectors * factors.view(-1, *[1] * (vectors.ndim - 1))


def _weights(log_weight: Tensor | None, references: Tensor) -> Tensor:
    """Weights, one a reference. Raises ValueError for one a pair."""
    if log_weight is None:
        return torch.ones(len(references), device=references.device)
    if log_weight.ndim == 2 and len(log_weight) > 1:
        raise ValueError("the original field needs one log-weight a reference, not one a pair")
    return log_weight.reshape(-1).exp()
