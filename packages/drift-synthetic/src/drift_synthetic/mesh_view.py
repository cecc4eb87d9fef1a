"""The density of points on a mesh, as colours of its faces."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from drift_synthetic.data import Problem
from drift_synthetic.laplacian import spectrum
from drift_synthetic.spectral import distributed, surface_kernel
from drift_synthetic.surface import Surface

_LENGTHSCALE = 0.12
"""Lengthscale of the smoothing of densities by the heat kernel."""
_CEILING = 6.0
"""Density of the darkest colour, relative to that of the uniform distribution."""
_LIGHT = (0.25, -0.35, 0.9)


@dataclass(frozen=True)
class MeshView:
    """The shaded surface, its faces coloured by the density of the points, smoothed."""

    projection: str | None = "3d"
    size: float = 4.2
    elevation: float = 62.0
    azimuth: float = -60.0

    def draw(self, axes: Any, problem: Problem, points: Tensor, colour: str) -> None:
        """Draw the density of all points; colours are the same in every panel."""
        from matplotlib import colormaps
        from mpl_toolkits.mplot3d.art3d import Poly3DCollection

        surface = problem.space.manifold
        assert isinstance(surface, Surface)
        density = (face_density(surface, points) / _CEILING).clamp(0, 1)
        light = torch.nn.functional.normalize(torch.tensor(_LIGHT, dtype=torch.float64), dim=0)
        shade = 0.62 + 0.38 * (surface.normals @ light).clamp(0, 1)
        colours = torch.from_numpy(colormaps["YlGnBu"](density.numpy())[:, :3]) * shade[:, None]
        axes.add_collection3d(
            Poly3DCollection(surface.corners.numpy(), facecolors=colours.numpy(), antialiased=False)
        )
        reach = float(surface.mesh.vertices.abs().max())
        axes.set(xlim=(-reach, reach), ylim=(-reach, reach), zlim=(-reach, reach))
        axes.set_box_aspect((1, 1, 1), zoom=1.6)
        axes.view_init(self.elevation, self.azimuth)
        axes.set_axis_off()


def face_density(surface: Surface, points: Float[Tensor, "n 3"]) -> Float[Tensor, " f"]:
    """Density of points on each face relative to the uniform distribution, smoothed by the heat kernel."""
    functions = spectrum(surface.mesh)
    kernel = surface_kernel(functions, float("inf"), _LENGTHSCALE)
    ones = torch.ones(len(points), 1, dtype=torch.float64)
    nodal = distributed(surface.locate(points), ones, surface.mesh.faces, len(surface.mesh.vertices))
    smooth = kernel.smoothed(nodal)[:, 0] - kernel.offset * len(points)
    uniform = len(points) * float(functions.functions[0, 0] ** 2)
    return smooth[surface.mesh.faces].mean(1).clamp_min(0) / uniform
