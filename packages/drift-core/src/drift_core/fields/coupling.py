"""Couplings of samples and references: log-weights of the references, from sums over the whole batch."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from drift_core.field import Batch
from drift_core.kernel import RadialKernel
from drift_core.manifold import Manifold
from drift_core.score import smoothed_log_density

LogSum = Callable[[Tensor | None], Tensor]
"""Maps log-weights (none: zero) to log-sums of the kernel, by one pass over all pairs."""

Coupling = Callable[[LogSum, LogSum], Tensor | None]
"""Maps `rows` and `columns` to further log-weights of the references, [m]; None: zero.

`rows(g)` is log sum_j exp(w_j + g_j) k(x_i, y_j), [n], and `columns(f)` is log sum_i exp(f_i) k(x_i, y_j),
[m]. The weights of a row are then softmax_j(w_j + g_j + log k(x_i, y_j)), as without a coupling: the field
is a difference of scores of reweighted data and reweighted samples.
"""


def rows_only(rows: LogSum, columns: LogSum) -> None:
    """Every sample distributes the weight 1 over the references: the method of the paper.

    Bias: none in the score, but it is blind to the masses of modes further apart than the lengthscale.
    Samples then keep the masses that they started with.
    """
    return None


def geometric_mean(rows: LogSum, columns: LogSum) -> Tensor:
    """Geometric mean of the softmax over references and of the softmax over samples (Deng et al. 2026).

    sqrt(k_ij / R_i  k_ij / C_j), with the sums R_i over a row and C_j over a column, is k_ij exp(g_j) times a
    factor of the row alone, with g_j = -log(C_j) / 2. C_j is proportional to the smoothed density of the
    samples at y_j, so that data among few samples count more.

    Bias: none where data and samples agree, since both are weighed by the same function of position; away
    from there the field is that of reweighted data. It is as blind to the masses of far modes as `rows_only`:
    g_j is at most half the exponent by which the kernel has fallen.
    """
    return -columns(None) / 2


@dataclass(frozen=True)
class Sinkhorn:
    """Two-sided normalisation: rows sum to 1, and columns to the same total each, by Sinkhorn iterations.

    g_j = -log sum_i exp(f_i) k_ij with f_i = -log sum_j exp(g_j) k_ij, in turn (Cuturi 2013,
    arXiv 1306.0895). In the limit V is the gradient of the Sinkhorn divergence between samples and data with
    the cost -log k (Feydy et al. 2019, arXiv 1810.08278), which sees the masses of all modes.

    Bias: none in that limit for large batches. In a small batch the plan matches this batch's data, not
    their distribution, so that a latent may be sent to another mode at every step; `BalancedField` learns the
    weights over training instead.
    """

    iterations: int = 10
    """Iterations, each one pass over the rows and one over the columns."""

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise ValueError(f"Sinkhorn needs at least one iteration, got {self.iterations}")

    def __call__(self, rows: LogSum, columns: LogSum) -> Tensor:
        """Log-weights of the references after the last iteration."""
        g = columns(-rows(None)).neg()
        for _ in range(self.iterations - 1):
            g = columns(-rows(g)).neg()
        return g


def coupled_log_weight(
    coupling: Coupling,
    manifold: Manifold,
    kernel: RadialKernel,
    batch: Batch,
    references: Float[Tensor, "m ..."],
    log_weight: Tensor | None,
    *,
    own: bool,
) -> Tensor | None:
    """Log-weights of references with a coupling to all samples of the batch, [1 or n, m]; none: zero.

    With `own` the references are the samples that repel, and those x that are among them are coupled to the
    others alone. Where log-weights are -inf samples and references are not coupled: of several problems in
    one batch [n, m], each has a coupling of its own. Raises ValueError for log-weights of a reference that
    differ between the samples to which it is coupled.
    """
    whole, _ = batch.pooled()
    weight = _weights(log_weight, references)
    x, index = whole.x, whole.negatives()[1] if own else None
    back = None if index is None else _inverse(index, len(references))
    apart = None if len(weight) == 1 else torch.where(weight == -torch.inf, weight, 0).T

    def rows(g: Tensor | None) -> Tensor:
        w = weight if g is None else weight + g
        return _finite(smoothed_log_density(manifold, kernel, x, references, log_weight=w, self_index=index))

    def columns(f: Tensor | None) -> Tensor:
        w = apart if f is None else f if apart is None else apart + f
        return _finite(smoothed_log_density(manifold, kernel, references, x, log_weight=w, self_index=back))

    g = coupling(rows, columns)
    return log_weight if g is None else weight + g


def _weights(log_weight: Tensor | None, references: Tensor) -> Tensor:
    """Log-weights that broadcast to [1, m], or to [n, m] with one number, or -inf, in a column."""
    if log_weight is None:
        return references.new_zeros(1, len(references))
    weight = log_weight.to(references)
    weight = weight if weight.ndim == 2 else weight.reshape(1, -1)
    if not bool(((weight == weight.amax(0)) | (weight == -torch.inf)).all()):
        raise ValueError("a coupling needs one log-weight a reference, not one a pair")
    return weight


def _inverse(index: Tensor, m: int) -> Tensor:
    """Index of the sample that each reference is, or -1."""
    inverse = index.new_full((m,), -1)
    inverse[index] = torch.arange(len(index), device=index.device)
    return inverse


def _finite(log_sum: Tensor) -> Tensor:
    """Log-sums, with 0 for those over nothing."""
    return log_sum.masked_fill(log_sum == -torch.inf, 0)
