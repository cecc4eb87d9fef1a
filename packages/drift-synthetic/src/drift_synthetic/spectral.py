"""Eigenfunctions as functions of points of the surface of a mesh, and its spectral kernels."""

import math
from functools import lru_cache, partial

import torch
from drift_core import Eigenbasis, SpectralKernel
from jaxtyping import Float, Float64
from torch import Tensor

from drift_synthetic.laplacian import EIGENFUNCTIONS, spectrum
from drift_synthetic.surface import Surface

_PROBES = 1_024
"""Vertices at most at all pairs of which a kernel is made positive."""


@lru_cache(maxsize=8)
def surface_basis(surface: Surface, levels: int = EIGENFUNCTIONS) -> Eigenbasis:
    """The `levels` lowest eigenfunctions, linear on each face; a level is one of them.

    Smoothed densities of their kernels are linear on each face, too, and their gradients constant there:
    nothing within a face is seen, nor structure finer than the last eigenfunction.
    """
    found = spectrum(surface.mesh, levels)
    functions = math.sqrt(4 * math.pi) * found.functions  # the area is 4 pi
    probes = functions[:: -(-len(functions) // _PROBES)]
    return Eigenbasis(found.values, partial(interpolate, surface, functions), probes, 2)


def interpolate(
    surface: Surface, nodal: Float64[Tensor, "v k"], x: Float[Tensor, "n 3"]
) -> Float64[Tensor, "n k"]:
    """Values at x of functions that are linear on each face, given at the vertices.

    They are those of the nearest points, and the derivative is that on the face.
    """
    at, base = surface.locate(x), x.double().cpu()
    mesh = surface.mesh
    weight = at.weight + torch.einsum("ncd,nd->nc", mesh.corner_gradients[at.face], base - base.detach())
    return torch.einsum("nc,nck->nk", weight, nodal[mesh.faces[at.face]]).to(x.device)


def surface_kernel(surface: Surface, nu: float, lengthscale: float) -> SpectralKernel:
    """Matern kernel of all eigenfunctions, or heat kernel for nu = inf, raised by what makes it positive."""
    basis = partial(surface_basis, surface)
    return SpectralKernel(basis, lengthscale, nu, levels=EIGENFUNCTIONS, raised=True)
