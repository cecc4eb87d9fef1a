"""Targets beyond the plane chart: exact samplers of densities in the coordinates of points."""

from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float64
from torch import Generator, Tensor

from drift_synthetic.laplacian import spectrum
from drift_synthetic.mesh import Mesh, areas


class Target(Protocol):
    """A density in the coordinates that `Space.lift` takes."""

    @property
    def name(self) -> str:
        """Name of the target, as in `--target`."""

    def sample(self, n: int, generator: Generator) -> Float64[Tensor, "n c"]:
        """Draw n points, exactly."""


@dataclass(frozen=True, eq=False)
class VertexDensity:
    """Density on a mesh that is linear on each face, proportional to nonnegative values at the vertices."""

    mesh: Mesh
    values: Float64[Tensor, " v"]
    name: str

    def sample(self, n: int, generator: Generator) -> Float64[Tensor, "n 3"]:
        """Draw n points: a face and one of its corners, then a point with a density that grows linearly to that corner."""
        faces = self.mesh.faces
        corners = self.mesh.vertices[faces]
        mass = areas(corners)[:, None] * self.values[faces]
        chosen = torch.multinomial(mass.flatten(), n, replacement=True, generator=generator)
        face, corner = chosen // 3, chosen % 3
        # Barycentric coordinates with the density 6 w_corner are of Dirichlet's distribution (2, 1, 1).
        weight = torch.empty(n, 4, dtype=torch.float64).exponential_(generator=generator)
        weight = weight[:, :3].scatter_add(1, corner[:, None], weight[:, 3:])
        return (weight[:, :, None] * corners[face]).sum(1) / weight.sum(1, keepdim=True)


def eigenfunction(mesh: Mesh, index: int = 80) -> VertexDensity:
    """Density proportional to the positive part of an eigenfunction, as of Chen and Lipman (2024).

    The default has some forty separate modes on the trefoil.
    """
    functions = spectrum(mesh).functions
    return VertexDensity(mesh, functions[:, min(index, functions.shape[1] - 1)].clamp_min(0), "eigenfunction")
