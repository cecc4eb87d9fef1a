"""Figures of points, densities and drift fields; each is written to a PNG file."""

from pathlib import Path

import numpy as np
import torch
from drift_core.runs.figures import DATA_COLOUR, MODEL_COLOUR, written_figure
from jaxtyping import Float
from torch import Tensor

from drift_sphere.coordinates import latlon_to_sphere
from drift_sphere.world import draw_coastlines, map_arrows, map_coordinates, some, world_axes

FIELD_COLOUR = "#222222"


def samples_figure(data: Float[Tensor, "n 3"], samples: Float[Tensor, "m 3"], path: str | Path) -> None:
    """Draw data beside samples, at most 5,000 points of each, on Mollweide maps of the world."""
    with written_figure(path, 3.1) as figure:
        columns = (("Data", data, DATA_COLOUR), ("Samples", samples, MODEL_COLOUR))
        for i, (title, points, colour) in enumerate(columns, start=1):
            axes = world_axes(figure, i, f"{title} (n = {len(points):,})")
            draw_coastlines(axes)
            axes.scatter(*map_coordinates(some(points)), s=4, c=colour, alpha=0.5, linewidths=0)


def density_figure(
    data: Float[Tensor, "n 3"], samples: Float[Tensor, "m 3"], path: str | Path, bandwidth: float = 0.08
) -> None:
    """Draw the densities of data and samples, smoothed over `bandwidth` radians, with one colour scale.

    The unit is the uniform density on the sphere; the scale is that of a square root, from 0 to the
    99.5th percentile of the data's density.
    """
    longitude, latitude = np.linspace(-180, 180, 181), np.linspace(-90, 90, 91)
    mesh = torch.meshgrid(torch.from_numpy(latitude), torch.from_numpy(longitude), indexing="ij")
    grid = latlon_to_sphere(*mesh).float()
    densities = [kernel_density(grid.reshape(-1, 3), points, bandwidth) for points in (data, samples)]
    top = float(densities[0].quantile(0.995).sqrt())
    with written_figure(path, 3.1) as figure:
        for i, (title, density) in enumerate(zip(("Data", "Samples"), densities, strict=True), start=1):
            axes = world_axes(figure, i, title)
            image = density.sqrt().reshape(grid.shape[:2]).numpy()
            mesh_image = axes.pcolormesh(
                np.radians(longitude), np.radians(latitude), image,
                cmap="cividis", vmin=0, vmax=top, shading="gouraud", rasterized=True,
            )  # fmt: skip
            draw_coastlines(axes, "#ffffff99", zorder=1.5)
        bar = figure.colorbar(mesh_image, ax=figure.axes, shrink=0.8, pad=0.02, extend="max")
        bar.ax.yaxis.set_major_formatter(lambda root, _: f"{root**2:.3g}")
        bar.set_label("density / uniform density")


def field_figure(
    x: Float[Tensor, "g 3"],
    start: Float[Tensor, "g 3"],
    end: Float[Tensor, "g 3"],
    data: Float[Tensor, "n 3"],
    path: str | Path,
) -> None:
    """Draw the drift field at grid points `x` at the start and the end of training, over the data.

    `start` and `end` are tangent vectors at `x`; both maps have one scale, given by a key, in the unit of
    the vectors.
    """
    typical = float(start.norm(dim=-1).quantile(0.9).clamp(min=torch.finfo(start.dtype).tiny))
    with written_figure(path, 3.4) as figure:
        for i, (title, field) in enumerate((("Start of training", start), ("End of training", end)), start=1):
            axes = world_axes(figure, i, title)
            draw_coastlines(axes)
            axes.scatter(*map_coordinates(some(data)), s=3, c=DATA_COLOUR, alpha=0.25, linewidths=0)
            quiver = axes.quiver(
                *map_coordinates(x), *map_arrows(axes, x, field), angles="uv", color=FIELD_COLOUR,
                width=0.0022, scale=typical * 20, minlength=0.3, headwidth=4, zorder=3,
            )  # fmt: skip
            length = float(f"{typical:.1g}")
            axes.quiverkey(quiver, 0.86, -0.06, length, f"|V| = {length:g}", labelpos="E")


def kernel_density(
    x: Float[Tensor, "g 3"], points: Float[Tensor, "n 3"], bandwidth: float
) -> Float[Tensor, " g"]:
    """Von Mises-Fisher kernel density at `x` of `points` (at most 5,000), relative to the uniform density.

    The concentration is 1 / bandwidth^2, with `bandwidth` in radians.
    """
    concentration = bandwidth**-2
    points = some(points).to(x)
    # What is below e^-80 would be denormal in float32, where exp takes twenty times as long.
    exponents = ((concentration * (rows @ points.T - 1)).clamp_min(-80.0) for rows in torch.split(x, 1024))
    mean = torch.cat([exponent.exp().mean(1) for exponent in exponents])
    return mean * 2 * concentration / -np.expm1(-2 * concentration)
