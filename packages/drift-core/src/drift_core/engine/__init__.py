"""Fused forms of the score: one pass over all pairs of float32 points, without an [n, m] array.

They equal the torch form in `drift_core.score`, which serves all other cases: gradients through the score,
float64, other manifolds, kernels without an accurate table, and machines without a C compiler or Triton.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from drift_core.engine import cpu, cuda, tables, tokens
from drift_core.engine.neighbours import Tree
from drift_core.engine.profile import Profile, profile_of
from drift_core.engine.request import Geometry, Request, Result
from drift_core.kernel import RadialKernel
from drift_core.kernel.rescaled import rescaled
from drift_core.manifold import Euclidean, Hyperboloid, Manifold, Power, Similarity, Sphere

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
    similarity = manifold.similarity or Similarity(manifold)
    if not _supported(similarity.manifold):
        return None
    images = similarity.image(x), similarity.image(y)
    geometry = _geometry(similarity.manifold, *images)
    squares = None if x.is_cuda or displacement else _squares(geometry, product)
    known = _profiles([rescaled(kernel, similarity.scale) for kernel in kernels], squares)
    if geometry is None or known is None:
        return None
    own = None if self_index is None else self_index.to(x.device, torch.int64)
    points = _flattened(*images) if geometry == Geometry.EUCLIDEAN else images
    run = cuda.run if x.is_cuda else cpu.run
    result = run(Request(geometry, known, *points, log_weight, own, displacement, gradient, product))
    if result is None or result.gradient is None:
        return result
    there = result.gradient.reshape(-1, *images[0].shape)
    unit = 1.0 if displacement else similarity.scale**2
    return result._replace(gradient=similarity.pullback(x, there / unit))


def _supported(manifold: Manifold) -> bool:
    """Whether fused loops know the manifold, for some points; without a map to another."""
    base = manifold.base if type(manifold) is Power else manifold
    known = (Euclidean, Sphere) if base is not manifold else (Euclidean, Sphere, Hyperboloid)
    return type(base) in known and base.similarity is None


def _geometry(manifold: Manifold, x: Tensor, y: Tensor) -> Geometry | None:
    """The geometry of a supported manifold with points such as x_i, if there is a loop for them."""
    base = manifold.base if type(manifold) is Power else manifold
    if type(base) is Euclidean:
        return Geometry.EUCLIDEAN
    if x.shape[-1] < 2:  # no dimension
        return None
    if base is manifold:
        return Geometry.SPHERE if type(manifold) is Sphere else Geometry.HYPERBOLOID
    return Geometry.SPHERES if y.ndim == x.ndim and x.shape[1] > 0 else None


def _squares(geometry: Geometry | None, product: bool) -> tables.Variable | None:
    """What loops on a CPU know before they know the distance of which kernels are functions."""
    if geometry == Geometry.EUCLIDEAN:
        return tables.FLAT
    if geometry == Geometry.SPHERE or (geometry == Geometry.SPHERES and product):
        return tables.SPHERICAL
    return tables.HYPERBOLIC if geometry == Geometry.HYPERBOLOID else None


def _flattened(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Points of flat space as vectors."""
    return x.flatten(1), y.flatten(y.ndim - x.ndim + 1)


def tree(points: Tensor) -> Tree | None:
    """Tree for nearest neighbours among points [m, d]; None where there is none for the case."""
    return Tree.of(points) if _enabled else None


def token_scores(
    kernels: Sequence[RadialKernel] | None,
    tables: Sequence[Tensor],
    named: Tensor,
    *,
    log_weight: Tensor | None = None,
    displacement: bool = False,
) -> tokens.TokenResult | None:
    """Scores against one-hot references by a fused loop; None where there is none for the case.

    Args:
        kernels: kernels of the total distance; None: product kernels.
        tables: squared angles to the letters of all positions, [rows, n]; for each product kernel its
            logarithm of the angles instead.
        named: rows that each reference names, [m, positions].
        log_weight: log-weights, [n, m].
        displacement: mean displacements instead of kernel gradients.
    """
    plain = _plain([t for t in (*tables, log_weight) if t is not None])
    if not _enabled or not plain or tables[0].is_cuda:
        return None
    profiles = None if kernels is None else _profiles(kernels)
    if profiles is None and kernels is not None:
        return None
    request = tokens.TokenRequest(torch.stack(list(tables)), named, profiles, log_weight, displacement)
    return tokens.run(request)


def _profiles(
    kernels: Sequence[RadialKernel], squares: tables.Variable | None = None
) -> list[Profile] | None:
    """The kernels as fused loops know them; None if they do not know them all."""
    known = [profile for kernel in kernels if (profile := profile_of(kernel, squares)) is not None]
    return known if len(known) == len(kernels) else None


def _plain(tensors: list[Tensor]) -> bool:
    """Whether all are float32 on one CPU or GPU, and no gradient is wanted."""
    wanted = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    known = len({t.device for t in tensors}) == 1 and tensors[0].device.type in ("cpu", "cuda")
    return not wanted and known and all(t.dtype == torch.float32 for t in tensors)
