"""Fused forms of the score: one pass over all pairs of float32 points, without an [n, m] array.

They equal the torch form in `drift_core.score`, which serves all other cases: gradients through the score,
float64, other manifolds, kernels without an accurate table, and machines without a C compiler or Triton.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from drift_core.engine import cpu, cuda
from drift_core.engine.neighbours import Tree
from drift_core.engine.profile import profile_of
from drift_core.engine.request import Geometry, Request, Result
from drift_core.kernel import RadialKernel
from drift_core.manifold import Euclidean, Hyperboloid, Manifold, Power, Sphere

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
    product: bool = False,
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
        product: on powers of the sphere, kernels of the angle at a position, of which the product is taken.
    """
    tensors = [t for t in (x, y, log_weight) if t is not None]
    if not _enabled or not _plain(tensors):
        return None
    flat = _flattened(manifold)
    geometry = Geometry.EUCLIDEAN if flat else _geometry(manifold, x, y)
    profiles = [profile_of(kernel) for kernel in kernels]
    known = [profile for profile in profiles if profile is not None]
    if geometry is None or len(known) < len(profiles):
        return None
    own = None if self_index is None else self_index.to(x.device, torch.int64)
    points = (x.flatten(1), y.flatten(y.ndim - x.ndim + 1)) if flat else (x, y)
    run = cuda.run if x.is_cuda else cpu.run
    result = run(Request(geometry, known, *points, log_weight, own, displacement, gradient, product))
    if result is None or result.gradient is None:
        return result
    return result._replace(gradient=result.gradient.reshape(-1, *x.shape))


def _flattened(manifold: Manifold) -> bool:
    """Whether it is flat space with points of several axes."""
    return type(manifold) is Power and type(manifold.base) is Euclidean


def _geometry(manifold: Manifold, x: Tensor, y: Tensor) -> Geometry | None:
    """The geometry of a manifold with points such as x_i, if there is a loop for it."""
    actual = manifold.scored_as or manifold
    if type(actual) is Euclidean:
        return Geometry.EUCLIDEAN
    if x.shape[-1] < 2:  # no dimension
        return None
    if type(actual) is Sphere:
        return Geometry.SPHERE
    if type(actual) is Hyperboloid:
        return Geometry.HYPERBOLOID
    spheres = type(actual) is Power and type(actual.base) is Sphere and y.ndim == x.ndim
    return Geometry.SPHERES if spheres and x.shape[1] > 0 else None


def tree(points: Tensor) -> Tree | None:
    """Tree for nearest neighbours among points [m, d]; None where there is none for the case."""
    return Tree.of(points) if _enabled else None


def _plain(tensors: list[Tensor]) -> bool:
    """Whether all are float32 on one CPU or GPU, and no gradient is wanted."""
    wanted = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    known = len({t.device for t in tensors}) == 1 and tensors[0].device.type in ("cpu", "cuda")
    return not wanted and known and all(t.dtype == torch.float32 for t in tensors)
