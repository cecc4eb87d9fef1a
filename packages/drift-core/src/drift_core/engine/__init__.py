"""Fused forms of the score: one pass over all pairs of float32 points, without an [n, m] array.

They equal the torch form in `drift_core.score`, which serves all other cases: gradients through the score,
float64, other manifolds, kernels without an accurate table, and machines without a C compiler.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from drift_core.engine import cpu
from drift_core.engine.neighbours import Tree
from drift_core.engine.profile import profile_of
from drift_core.engine.request import Geometry, Request, Result
from drift_core.kernel import RadialKernel
from drift_core.manifold import Euclidean, Hyperboloid, Manifold, Sphere

_GEOMETRIES: dict[type[Manifold], Geometry] = {
    Euclidean: Geometry.EUCLIDEAN,
    Sphere: Geometry.SPHERE,
    Hyperboloid: Geometry.HYPERBOLOID,
}
_enabled = True


@contextmanager
def disabled() -> Iterator[None]:
    """Context in which the library is not used, to compare with."""
    global _enabled
    before, _enabled = _enabled, False
    try:
        yield
    finally:
        _enabled = before


def fused(
    manifold: Manifold,
    kernels: Sequence[RadialKernel],
    x: Tensor,
    y: Tensor,
    *,
    log_weight: Tensor | None = None,
    self_index: Tensor | None = None,
    displacement: bool = False,
    gradient: bool = True,
) -> Result | None:
    """Scores by a fused loop; None where there is none for the case.

    Args:
        manifold: the geometry of the points.
        kernels: radial kernels on it.
        x: queries, [n, *point].
        y: references, [m, *point], or separate ones for every query, [n, m, *point].
        log_weight: log-weights, [n, m].
        self_index: index of the reference that is excluded for each query, [n].
        displacement: mean displacements instead of kernel gradients.
        gradient: whether to compute them at all.
    """
    geometry = _GEOMETRIES.get(type(manifold))
    tensors = [t for t in (x, y, log_weight) if t is not None]
    if not _enabled or geometry is None or not _plain(tensors):
        return None
    if x.shape[-1] < (1 if geometry == Geometry.EUCLIDEAN else 2):  # no dimension
        return None
    profiles = [profile_of(kernel) for kernel in kernels]
    known = [profile for profile in profiles if profile is not None]
    if len(known) < len(profiles):
        return None
    own = None if self_index is None else self_index.to(x.device, torch.int64)
    return cpu.run(Request(geometry, known, x, y, log_weight, own, displacement, gradient))


def tree(points: Tensor) -> Tree | None:
    """Tree for nearest neighbours among points [m, d]; None where there is none for the case."""
    return Tree.of(points) if _enabled else None


def _plain(tensors: list[Tensor]) -> bool:
    """Whether all are float32 on a CPU, and no gradient is wanted."""
    wanted = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    return not wanted and all(t.device.type == "cpu" and t.dtype == torch.float32 for t in tensors)
