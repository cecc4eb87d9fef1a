"""A field for the end of training: nearest neighbours among all data and a replay buffer of samples."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from drift_core.engine import fused, tree
from drift_core.field import Batch, Drift, diagnostics
from drift_core.fields.kernel import KernelField, sum_scales
from drift_core.kernel import RadialKernel
from drift_core.manifold import Euclidean, Manifold, Sphere
from drift_core.manifold.interface import check_clouds
from drift_core.reduction import Score, check_kernels, check_request
from drift_core.score import pairs_score, smoothed_log_density

_BLOCK = 2**22
"""Pairs whose distances are sorted at once if there is no tree."""
_PROBES = 512
"""Data points at which the tail mass is measured."""


class NearestPoints:
    """Exact nearest-neighbour search in a cloud of points [m, *point].

    On spheres and Euclidean spaces, on a CPU, it is a k-d tree, whose queries take time logarithmic in m in
    few dimensions (on a sphere, chords order points as angles do): the engine's for float32 in up to 8
    dimensions, where there is one, else scipy's. Elsewhere all distances are computed, in blocks.
    """

    def __init__(self, manifold: Manifold, points: Float[Tensor, "m ..."]) -> None:
        check_clouds(manifold, points, points)
        self.manifold, self.points = manifold, points
        by_tree = isinstance(manifold, Euclidean | Sphere) and points.device.type == "cpu"
        self._nearest = _search(points.detach()) if by_tree else None

    def __call__(self, x: Float[Tensor, "n ..."], k: int) -> Int64[Tensor, "n k"]:
        """Indices of the k nearest points of each x, nearest first. Raises ValueError unless 1 <= k <= m."""
        check_clouds(self.manifold, x, self.points)
        if not 1 <= k <= len(self.points):
            raise ValueError(f"of {len(self.points)} points the nearest {k} were asked for")
        if self._nearest is not None:
            return self._nearest(x.detach(), k)
        rows = max(1, _BLOCK // len(self.points))
        distances = (self.manifold.cdist(part, self.points) for part in torch.split(x, rows))
        return torch.cat([part.topk(k, largest=False).indices for part in distances])


def _search(points: Tensor) -> Callable[[Tensor, int], Tensor]:
    """Search in a k-d tree of the points."""
    built = tree(points)
    return _scipy_search(points) if built is None else built.nearest


def _scipy_search(points: Tensor) -> Callable[[Tensor, int], Tensor]:
    from scipy.spatial import cKDTree  # takes most of a second to import

    built = cKDTree(points.numpy())

    def nearest(x: Tensor, k: int) -> Tensor:
        ranks = range(1, k + 1)  # a list, so that k = 1 keeps its axis
        _, index = built.query(x.numpy(), k=ranks, workers=torch.get_num_threads())
        return torch.from_numpy(index).long()

    return nearest


def nearest_scores(
    manifold: Manifold,
    kernels: Sequence[RadialKernel],
    x: Float[Tensor, "n ..."],
    y: Float[Tensor, "n k ..."],
    *,
    direction: str = "gradient",
) -> list[Score]:
    """`smoothed_scores` with separate references y_i for every query x_i.

    With the k nearest of m references it is the sum over all m without its tail, exact for k = m.
    Raises ValueError for no reference, an unknown direction, or a kernel not defined on the manifold.
    """
    check_kernels(manifold, kernels, x)
    check_request(y[0] if len(y) else y, direction, None)
    result = fused(manifold, kernels, x, y, displacement=direction == "displacement")
    if result is not None:
        return result.scores()
    pairs = manifold.near_pairs(x, y)
    return [pairs_score(kernel, pairs, direction) for kernel in kernels]


class NearestField(nn.Module):
    """Switches from the field of batches to that of nearest neighbours, at the end of training.

    At a short lengthscale the field of a batch is noisy: few of its data points and samples are near a given
    sample. After the switch, a sample is attracted by its nearest neighbours among all data points and
    repelled by those in a replay buffer of samples; on S^2 that costs no more than a field between two
    batches of 1,024. The larger of the two sets contributes `neighbors`, the smaller proportionally fewer,
    so that both reach equally far; beyond, attraction would not be opposed by repulsion.

    The field switches once the buffer is full and the nearest data points hold all but `tolerance` of the
    kernel's mass at a data point, on average. Before that the truncation would be wrong, and samples would
    collapse, because the tail is what spreads them. Samples in the buffer lag behind the generator, the more
    the higher the learning rate: use it for the end of training, and if a batch does not hold all data.

    Checkpoints save the replay buffer.

    Args:
        field: the drift field of batches.
        data: all data points, shape [m, *point].
        buffer_size: samples in the replay buffer; more of them mean less noise, but older samples.
        neighbors: neighbours of each query in the larger of the two sets.
        tolerance: largest tail mass, the fraction of the kernel's mass beyond the neighbours.

    Raises:
        ValueError: buffer_size or neighbors below 1, tolerance not in [0, 1).
    """

    data: Tensor
    """All data points, [m, *point]."""
    samples: Tensor
    """The replay buffer, newest last, [buffer_size, *point]."""
    filled: Tensor
    """Number of samples in the buffer so far, an integer scalar."""

    def __init__(
        self,
        field: KernelField,
        data: Float[Tensor, "m ..."],
        *,
        buffer_size: int = 16_384,
        neighbors: int = 128,
        tolerance: float = 0.1,
    ) -> None:
        super().__init__()
        if min(buffer_size, neighbors) < 1 or not 0 <= tolerance < 1:
            raise ValueError(
                "buffer_size and neighbors must be at least 1 and tolerance lie in [0, 1), "
                f"got {buffer_size}, {neighbors} and {tolerance}"
            )
        self.field, self.tolerance = field, tolerance
        ratio = buffer_size / len(data)
        self.data_neighbors = min(len(data), max(1, round(neighbors * min(1.0, 1 / ratio))))
        self.sample_neighbors = min(buffer_size, max(1, round(neighbors * min(1.0, ratio))))
        self.register_buffer("data", data.detach(), persistent=False)
        self.register_buffer("samples", data.new_zeros(buffer_size, *data.shape[1:]))
        self.register_buffer("filled", torch.zeros((), dtype=torch.long))
        self._index: NearestPoints | None = None
        self._resolved: dict[tuple[float, ...], bool] = {}

    @property
    def manifold(self) -> Manifold:
        """Geometry of the field."""
        return self.field.manifold

    def resolves(self, progress: float) -> bool:
        """Whether the tail mass at this fraction of training is at most `tolerance`."""
        scales = self.field.lengthscales.at(progress)
        if scales not in self._resolved:
            self._resolved[scales] = self.tail_mass(max(scales)) <= self.tolerance
        return self._resolved[scales]

    def tail_mass(self, lengthscale: float) -> float:
        """Fraction of the kernel's mass at a data point beyond its nearest neighbours, on average."""
        probes = self.data[:: max(1, len(self.data) // _PROBES)][:_PROBES]
        kernel = self.field.kernel(lengthscale)
        (near,) = nearest_scores(self.manifold, (kernel,), probes, self._nearest_data(probes))
        whole = smoothed_log_density(self.manifold, kernel, probes, self.data)
        return 1 - float((near.log_density - whole).exp().mean())

    def __call__(self, batch: Batch) -> Drift:
        """Field of the batch or, after the switch, of the nearest neighbours."""
        if self.resolves(batch.progress) and int(self.filled) == len(self.samples):
            return self._nearest(batch.x, batch.progress)
        return self.field(batch)

    def observe(self, batch: Batch) -> None:
        """Append the samples that repel to the replay buffer."""
        model, _ = batch.negatives()
        self.samples = torch.cat([self.samples, model.detach().to(self.samples)])[-len(self.samples) :]
        self.filled = (self.filled + len(model)).clamp(max=len(self.samples))

    def diagnostics(self, batch: Batch) -> dict[str, float]:
        """Diagnostics of the field of batches."""
        return diagnostics(self.field, batch)

    def _nearest(self, x: Tensor, progress: float) -> Drift:
        """Attraction to the nearest of all data, repulsion from the nearest in the replay buffer."""
        scales, direction = self.field.lengthscales.at(progress), self.field.direction
        kernels = [self.field.kernel(scale) for scale in scales]
        scores = partial(nearest_scores, self.manifold, kernels, x, direction=direction)
        attracting = self._nearest_data(x)
        remembered = NearestPoints(self.manifold, self.samples)
        repelling = _take(self.samples, remembered(x, self.sample_neighbors))
        return Drift(
            sum_scales(scales, scores(attracting), direction),
            sum_scales(scales, scores(repelling), direction),
        )

    def _nearest_data(self, x: Tensor) -> Tensor:
        """The neighbours of each x among all data, [n, data_neighbors, *point]."""
        if self._index is None or self._index.points is not self.data:
            self._index = NearestPoints(self.manifold, self.data)
        return _take(self.data, self._index(x, self.data_neighbors))


def _take(points: Tensor, index: Int64[Tensor, "n k"]) -> Float[Tensor, "n k ..."]:
    """`points[index]`, on a CPU by numpy: torch's threads would take longer to start than numpy to copy."""
    if points.device.type == "cpu":
        return torch.from_numpy(np.take(points.detach().numpy(), index.numpy(), axis=0))
    return points[index]
