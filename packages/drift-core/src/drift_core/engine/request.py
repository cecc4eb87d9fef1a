"""What fused loops compute, on every device."""

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

from torch import Tensor

from drift_core.engine.profile import Profile
from drift_core.reduction import Score


class Geometry(IntEnum):
    """Geometries that have a fused loop."""

    EUCLIDEAN = 0
    SPHERE = 1
    HYPERBOLOID = 2
    SPHERES = 3
    """Products of spheres, points [L, d]."""


class Request(NamedTuple):
    """Scores of several kernels over all pairs of two float32 clouds on one device."""

    geometry: Geometry
    profiles: Sequence[Profile]
    """The kernels."""
    x: Tensor
    """Queries, [n, d] or, for `SPHERES`, [n, L, d]."""
    y: Tensor
    """References, [m, d] or [m, L, d], or separate ones for every query, [n, m, d]."""
    log_weight: Tensor | None = None
    """Log-weights, [n, m], in general a view with strides of 0; -inf excludes a pair."""
    self_index: Tensor | None = None
    """Index of the reference that is excluded for each query, int64 [n]; outside 0..m-1: none."""
    displacement: bool = False
    """Mean displacements instead of kernel gradients."""
    gradient: bool = True
    """False: log-densities alone."""
    product: bool = False
    """For `SPHERES`: kernels of the angle at a position, whose product over positions is the kernel."""


class Result(NamedTuple):
    """Scores of k kernels."""

    log_density: Tensor
    """[k, n]."""
    gradient: Tensor | None
    """[k, n, d] or [k, n, L, d], if requested."""
    sample_size: Tensor
    """Effective numbers of references, 1 / sum_j p_ij^2, [k, n]."""

    def scores(self) -> list[Score]:
        """One score a kernel, if gradients were requested."""
        assert self.gradient is not None, "no gradients were requested"
        return [Score(*parts) for parts in zip(self.log_density, self.gradient, strict=True)]
