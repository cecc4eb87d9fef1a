"""Fields of kernels that are given by eigenfunctions, at a cost linear in the number of points."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from drift_core.field import Batch, Drift
from drift_core.fields.kernel import sum_scales
from drift_core.kernel.eigenfunctions import SpectralKernel
from drift_core.lengthscale import Lengthscales
from drift_core.manifold import Manifold
from drift_core.manifold.interface import check_clouds
from drift_core.reduction import Score, check_references

_ROWS = 4096
"""Points whose features are computed at once."""
_FLOOR = 1e-14
"""Densities below this fraction of k(x, x) are rounding: they have no gradient."""


def spectral_score(
    manifold: Manifold,
    kernel: SpectralKernel,
    x: Float[Tensor, "n ..."],
    y: Float[Tensor, "m ..."],
    *,
    log_weight: Float[Tensor, "..."] | None = None,
    self_index: Int[Tensor, " n"] | None = None,
) -> Score:
    """`smoothed_score` of a spectral kernel: log-density Phi(x) . sum_j w_j Phi(y_j), and its gradient.

    The gradient is that of the features by autograd, as a tangent vector of the manifold. Neither a distance
    nor an [n, m] array is computed.

    Args:
        manifold: the geometry of the points, for tangent vectors.
        kernel: a kernel of the same points.
        x: queries, shape [n, *point].
        y: references, shape [m, *point].
        log_weight: log-weights of the references, [m] or [1, m]; -inf excludes one.
        self_index: index of each query among the references, which is excluded; outside 0..m-1: none.

    Raises:
        ValueError: mismatched shapes, no reference, or log-weights that differ from query to query.
    """
    check_clouds(manifold, x, y)
    check_references(y)
    if len(x) == 0:
        return Score(x.new_zeros(0), torch.zeros_like(x))
    weight = _weights(log_weight, y)
    blocks = zip(torch.split(y, _ROWS), torch.split(weight, _ROWS), strict=True)
    total = torch.stack([_sum(kernel, *block) for block in blocks]).sum(0)
    own = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    if self_index is not None:
        inside = (self_index >= 0) & (self_index < len(y))
        own = weight[self_index.clamp(0, len(y) - 1)] * inside
    rows = zip(torch.split(x, _ROWS), torch.split(own, _ROWS), strict=True)
    scores = [_score_rows(manifold, kernel, *part, total, float(weight.sum())) for part in rows]
    return Score(*map(torch.cat, zip(*scores, strict=True)))


def _weights(log_weight: Tensor | None, y: Tensor) -> Tensor:
    """Weights of the references, [m], in float64."""
    if log_weight is None:
        return y.new_ones(len(y), dtype=torch.float64)
    if log_weight.numel() not in (1, len(y)) or log_weight.shape[-1:] not in ((len(y),), (1,), ()):
        raise ValueError(
            f"spectral scores take one log-weight a reference, [{len(y)}], got shape {list(log_weight.shape)}"
        )
    return log_weight.double().exp().flatten().expand(len(y)).to(y.device)


@torch.no_grad()
def _sum(kernel: SpectralKernel, y: Tensor, weight: Tensor) -> Tensor:
    return weight @ kernel.features(y)


def _score_rows(
    manifold: Manifold, kernel: SpectralKernel, x: Tensor, own: Tensor, total: Tensor, mass: float
) -> Score:
    """Score of some queries, from sums over all references and the weights of their own terms among them."""
    with torch.enable_grad():
        points = x.detach().double().requires_grad_()
        phi = kernel.features(points)
        itself = phi.detach().square().sum(1)
        density = phi @ total - own * (phi * phi.detach()).sum(1)
        floor = (_FLOOR * mass * itself).clamp_min(1e-300)
        log_density = torch.maximum(density, floor).log()
        (ambient,) = torch.autograd.grad(log_density.sum(), points)
    gradient = manifold.egrad2rgrad(points.detach(), ambient)
    log_density = log_density.detach().masked_fill(own >= mass, -torch.inf)
    return Score(log_density.to(x.dtype), gradient.to(x.dtype))


@dataclass(frozen=True)
class SpectralField:
    """Drift field V = grad log p_k - grad log q_k of a spectral kernel, at one or several lengthscales.

    It costs the features of all points and no pairs: the field for very many references on a space of few
    dimensions. Lengthscales are as in `KernelField`; kernels are made once for each.
    """

    manifold: Manifold
    kernel: Callable[[float], SpectralKernel]
    """Maps a lengthscale to a kernel, as `partial(SpectralKernel, space)` does."""
    lengthscales: Lengthscales
    _kernels: dict[float, SpectralKernel] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __call__(self, batch: Batch) -> Drift:
        """Attraction to the data and repulsion from the model at the progress of the batch."""
        scales = self.lengthscales.at(batch.progress)
        model, own = batch.negatives()

        def score(scale: float, y: Tensor, weight: Tensor | None, own: Tensor | None) -> Score:
            if scale not in self._kernels:
                self._kernels[scale] = self.kernel(scale)
            kernel = self._kernels[scale]
            return spectral_score(self.manifold, kernel, batch.x, y, log_weight=weight, self_index=own)

        attraction = [score(scale, batch.data, batch.data_log_weight, None) for scale in scales]
        repulsion = [score(scale, model, batch.model_log_weight, own) for scale in scales]
        return Drift(sum_scales(scales, attraction, "gradient"), sum_scales(scales, repulsion, "gradient"))
