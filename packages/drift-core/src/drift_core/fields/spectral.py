"""Fields of kernels that are given by eigenfunctions, at a cost linear in the number of points."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64, Int, Int64
from torch import Tensor

from drift_core.field import Batch, Drift
from drift_core.fields.kernel import sum_scales
from drift_core.kernel.eigenfunctions import SpectralKernel
from drift_core.lengthscale import Lengthscales
from drift_core.manifold import Manifold
from drift_core.manifold.interface import check_clouds
from drift_core.manifold.numerics import safe_ratio
from drift_core.reduction import Score, check_request

_ROWS = 4096
"""Points whose features are computed at once."""
_PAIRS = 2**20
"""Pairs whose logarithms are summed at once."""
_FLOOR = 1e-14
"""Densities below this fraction of k(x, x) are rounding: they have no gradient."""


class _References(NamedTuple):
    """What a score takes of its references."""

    points: Tensor
    weight: Float64[Tensor, " m"]
    own: Int64[Tensor, " n"] | None
    """Index of each query among them, which is excluded; outside 0..m-1: none."""

    def own_weight(self, rows: slice, like: Tensor) -> Float64[Tensor, " r"]:
        """Weight of the term of each query itself."""
        if self.own is None:
            return like.new_zeros(len(like), dtype=torch.float64)
        own, m = self.own[rows], len(self.points)
        return self.weight[own.clamp(0, m - 1)] * ((own >= 0) & (own < m))


def spectral_score(
    manifold: Manifold,
    kernel: SpectralKernel,
    x: Float[Tensor, "n ..."],
    y: Float[Tensor, "m ..."],
    *,
    log_weight: Float[Tensor, "..."] | None = None,
    self_index: Int[Tensor, " n"] | None = None,
    direction: str = "gradient",
) -> Score:
    """`smoothed_score` of a spectral kernel: log-density Phi(x) . sum_j w_j Phi(y_j), and its gradient.

    The gradient is that of the features by autograd, as a tangent vector of the manifold. Neither a distance
    nor an [n, m] array is computed. The displacement, the mean of log_x(y), is no function of such sums: it
    takes all pairs, in blocks.

    Args:
        manifold: the geometry of the points, for tangent vectors.
        kernel: a kernel of the same points.
        x: queries, shape [n, *point].
        y: references, shape [m, *point].
        log_weight: log-weights of the references, [m] or [1, m]; -inf excludes one.
        self_index: index of each query among the references, which is excluded; outside 0..m-1: none.
        direction: "gradient" (kernel gradient) or "displacement" (mean shift).

    Raises:
        ValueError: mismatched shapes, no reference, an unknown direction, or log-weights that differ from
            query to query.
    """
    check_clouds(manifold, x, y)
    check_request(y, direction, None)
    return _scores(manifold, kernel, x, [_References(y, _weights(log_weight, y), self_index)], direction)[0]


def _scores(
    manifold: Manifold, kernel: SpectralKernel, x: Tensor, sides: Sequence[_References], direction: str
) -> list[Score]:
    """Scores of several clouds of references, for which the features of the queries are computed once."""
    if len(x) == 0:
        return [Score(x.new_zeros(0), torch.zeros_like(x)) for _ in sides]
    rows = range(0, len(x), _ROWS)
    if direction == "displacement":
        return [_displacement(manifold, kernel, x, side) for side in sides]
    totals = [_sum(kernel, side) for side in sides]
    blocks = [_gradients(manifold, kernel, x, slice(i, i + _ROWS), sides, totals) for i in rows]
    return [Score(*map(torch.cat, zip(*scores, strict=True))) for scores in zip(*blocks, strict=True)]


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
def _sum(kernel: SpectralKernel, side: _References) -> Tensor:
    """Weighted sum of the features of references."""
    blocks = zip(torch.split(side.points, _ROWS), torch.split(side.weight, _ROWS), strict=True)
    return torch.stack([weight @ kernel.features(y) for y, weight in blocks]).sum(0)


def _gradients(
    manifold: Manifold,
    kernel: SpectralKernel,
    x: Tensor,
    rows: slice,
    sides: Sequence[_References],
    totals: Sequence[Tensor],
) -> list[Score]:
    """Scores of some queries, from sums over all references and the weights of their own terms among them."""
    scores, dtype = [], x.dtype
    with torch.enable_grad():
        points = x[rows].detach().double().requires_grad_()
        phi = kernel.features(points)
        itself = phi.detach().square().sum(1)
        for side, total in zip(sides, totals, strict=True):
            mass, own = side.weight.sum(), side.own_weight(rows, points)
            density = phi @ total - own * (phi * phi.detach()).sum(1)
            log_density = torch.maximum(density, (_FLOOR * mass * itself).clamp_min(1e-300)).log()
            (ambient,) = torch.autograd.grad(log_density.sum(), points, retain_graph=True)
            gradient = manifold.egrad2rgrad(points.detach(), ambient)
            log_density = log_density.detach().masked_fill(own >= mass, -torch.inf)
            scores.append(Score(log_density.to(dtype), gradient.to(dtype)))
    return scores


@torch.no_grad()
def _displacement(manifold: Manifold, kernel: SpectralKernel, x: Tensor, side: _References) -> Score:
    """Log-density and mean logarithm, by all pairs of some queries with the references."""
    features, m, blocks = kernel.features(side.points), len(side.points), []
    for start in range(0, len(x), block := max(1, _PAIRS // m)):
        rows = slice(start, start + block)
        weight = (kernel.features(x[rows]) @ features.T).clamp_min(0) * side.weight
        if side.own is not None:
            weight = weight.masked_fill(side.own[rows, None] == torch.arange(m, device=x.device), 0)
        density = weight.sum(1)
        mean = manifold.log_sum(x[rows], side.points, safe_ratio(weight, density[:, None]).to(x.dtype))
        blocks.append(Score(density.log().to(x.dtype), mean))
    return Score(*map(torch.cat, zip(*blocks, strict=True)))


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
    direction: str = "gradient"
    """Along the kernel gradient, or along the mean displacement ("displacement"), which takes all pairs."""
    _kernels: dict[float, SpectralKernel] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __call__(self, batch: Batch) -> Drift:
        """Attraction to the data and repulsion from the model at the progress of the batch."""
        scales = self.lengthscales.at(batch.progress)
        model, own = batch.negatives()
        sides = [
            _References(batch.data, _weights(batch.data_log_weight, batch.data), None),
            _References(model, _weights(batch.model_log_weight, model), own),
        ]
        for side in sides:
            check_clouds(self.manifold, batch.x, side.points)
            check_request(side.points, self.direction, None)
        scores = [
            _scores(self.manifold, self._kernel(scale), batch.x, sides, self.direction) for scale in scales
        ]
        return Drift(*(sum_scales(scales, part, self.direction) for part in zip(*scores, strict=True)))

    def _kernel(self, scale: float) -> SpectralKernel:
        if scale not in self._kernels:
            self._kernels[scale] = self.kernel(scale)
        return self._kernels[scale]
