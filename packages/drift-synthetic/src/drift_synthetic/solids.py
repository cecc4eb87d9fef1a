"""Views of surfaces as shaded solids: the density on a mesh, and points on a torus."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from drift_synthetic.data import Problem
from drift_synthetic.spectral import surface_basis
from drift_synthetic.surface import Surface

_LENGTHSCALE = 0.12
"""Lengthscale of the heat kernel by which densities are smoothed."""
_CEILING = 4.5
"""Density of the darkest colour, relative to that of the uniform distribution."""
_TUBE = 0.45
"""Radius of the torus's tube, relative to that of its centre line."""


@dataclass(frozen=True)
class MeshView:
    """The shaded surface, its faces coloured by the density of the points, smoothed."""

    projection: str | None = "3d"
    size: tuple[float, float] = (4.4, 4.0)

    def draw(self, axes: Any, problem: Problem, points: Tensor, colour: str) -> None:
        """Draw the density of all points; colours are the same in every panel."""
        from matplotlib import colormaps

        surface = problem.space.manifold
        assert isinstance(surface, Surface)
        density = (face_density(surface, points) / _CEILING).clamp(0, 1)
        colours = torch.from_numpy(colormaps["YlGnBu"](density.numpy())[:, :3])
        shaded_solid(axes, surface.mesh.corners, surface.mesh.normals, colours, elevation=72.0)


def face_density(surface: Surface, points: Float[Tensor, "n 3"]) -> Float[Tensor, " f"]:
    """Density of points on each face relative to the uniform distribution, smoothed by the heat kernel."""
    basis = surface_basis(surface)
    heat = torch.exp(-(_LENGTHSCALE**2) * basis.eigenvalues / 2)
    mean = basis.functions(points).mean(0)
    return (basis.functions(surface.mesh.corners.mean(1)) @ (heat * mean)).clamp_min(0)


@dataclass(frozen=True)
class DonutView:
    """Points on a torus in space, round the hole by the first angle and round the tube by the second.

    Points on the far side are not drawn. Lengths are not those of the flat torus.
    """

    projection: str | None = "3d"
    size: tuple[float, float] = (3.0, 2.4)

    def draw(self, axes: Any, problem: Problem, points: Tensor, colour: str) -> None:
        """Draw at most 5,000 points."""
        around, along = 36, 90
        ticks = torch.cartesian_prod(torch.arange(along), torch.arange(around))
        steps = torch.tensor([[0, 0], [1, 0], [1, 1], [0, 1]])
        turn = 2 * math.pi / torch.tensor([along, around], dtype=torch.float64)
        corners, _ = on_donut((ticks[:, None] + steps) * turn)
        _, normals = on_donut((ticks + 0.5) * turn)
        shaded_solid(axes, corners, normals, torch.full((len(ticks), 3), 0.93).double(), elevation=50.0)
        x, normals = on_donut(points[:: max(1, -(-len(points) // 5_000))].double())
        azimuth, elevation = math.radians(axes.azim), math.radians(axes.elev)
        flat = math.cos(elevation)
        eye = [flat * math.cos(azimuth), flat * math.sin(azimuth), math.sin(elevation)]
        near = x[normals @ torch.tensor(eye, dtype=torch.float64) > 0.05]
        axes.computed_zorder = False
        axes.scatter(*near.T.numpy(), s=2.5, c=colour, alpha=0.6, linewidths=0, depthshade=False, zorder=5)


def on_donut(angles: Float64[Tensor, "*batch 2"]) -> tuple[Tensor, Tensor]:
    """Points [*batch, 3] of the torus in space at pairs of angles, and the unit normals there."""
    phi, psi = angles.unbind(-1)
    normal = torch.stack([psi.cos() * phi.cos(), psi.cos() * phi.sin(), psi.sin()], dim=-1)
    centre = torch.stack([phi.cos(), phi.sin(), torch.zeros_like(phi)], dim=-1)
    return centre + _TUBE * normal, normal


def shaded_solid(
    axes: Any,
    corners: Float64[Tensor, "f k 3"],
    normals: Float64[Tensor, "f 3"],
    colours: Float64[Tensor, "f 3"],
    elevation: float,
) -> None:
    """Draw polygons in their colours under a light from above, and fit the axes to them."""
    from mpl_toolkits.mplot3d.art3d import Poly3DCollection

    light = torch.nn.functional.normalize(torch.tensor([0.3, -0.5, 0.8], dtype=torch.float64), dim=0)
    shade = 0.72 + 0.28 * (normals @ light).clamp(-1, 1)
    faces = (colours * shade[:, None]).clamp(0, 1).numpy()
    axes.add_collection3d(
        Poly3DCollection(corners.numpy(), facecolors=faces, edgecolors=faces, linewidths=0.3)
    )
    low, high = corners.flatten(0, 1).aminmax(dim=0)
    middle, reach = (low + high) / 2, float((high - low).max()) / 2
    for name, centre in zip("xyz", middle.tolist(), strict=True):
        axes.set(**{f"{name}lim": (centre - reach, centre + reach)})
    axes.set_box_aspect((1, 1, 1), zoom=1.35)
    axes.view_init(elevation, -60)
    axes.set_proj_type("ortho")
    axes.set_axis_off()
