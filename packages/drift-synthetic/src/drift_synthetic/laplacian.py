"""Eigenfunctions of the Laplacian of a triangle mesh."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from drift_synthetic.mesh import Mesh, areas

EIGENFUNCTIONS = 256
"""Number of eigenfunctions of kernels, whose finest waves are 0.4 long on an area of 4 pi."""

_SHIFT = -0.1
"""Just below the spectrum, where the inverse that Lanczos iterates is well conditioned."""


@dataclass(frozen=True, eq=False)
class Spectrum:
    """The lowest eigenfunctions of the Laplacian of a mesh, linear on each face, orthonormal."""

    values: Float64[Tensor, " k"]
    """Eigenvalues in ascending order; the first is 0."""
    functions: Float64[Tensor, "v k"]
    """Their values at the vertices; the sign is such that the largest is positive."""


def cotangents(corners: Float64[Tensor, "f 3 3"]) -> Float64[Tensor, "f 3"]:
    """Cotangents of the angles of triangles at their corners."""
    u, v = (corners.roll(-step, 1) - corners for step in (1, 2))
    return (u * v).sum(-1) / torch.linalg.cross(u, v).norm(dim=-1)


@lru_cache(maxsize=8)
def spectrum(mesh: Mesh, count: int = EIGENFUNCTIONS) -> Spectrum:
    """The `count` lowest eigenfunctions, or all but two if there are fewer.

    The Laplacian is the cotangent form of linear finite elements with lumped masses (Pinkall and Polthier
    1993); its eigenvalues differ from those of a smooth surface by O(h^2) of the length h of edges.
    """
    from scipy.sparse import coo_matrix, diags
    from scipy.sparse.linalg import eigsh

    corners, faces, n = mesh.vertices[mesh.faces], mesh.faces.numpy(), len(mesh.vertices)
    ends = np.concatenate([faces[:, [1, 2]], faces[:, [2, 0]], faces[:, [0, 1]]]).T
    half = coo_matrix((cotangents(corners).T.numpy().ravel() / 2, ends), shape=(n, n))
    weights = half + half.T
    laplacian = diags(np.asarray(weights.sum(axis=1)).ravel()) - weights
    mass = np.bincount(faces.ravel(), np.repeat(areas(corners).numpy() / 3, 3), minlength=n)
    root = diags(mass**-0.5)
    # A fixed start vector: the result is then the same in every run.
    start = np.random.default_rng(0).standard_normal(n)
    values, vectors = eigsh((root @ laplacian @ root).tocsc(), min(count, n - 2), sigma=_SHIFT, v0=start)
    order = np.argsort(values)
    functions = torch.from_numpy((root @ vectors)[:, order])
    largest = functions.gather(0, functions.abs().argmax(dim=0, keepdim=True))
    return Spectrum(torch.from_numpy(values[order]).clamp_min(0), functions * largest.sign())
