"""Maps of the world in Mollweide projection."""

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from drift_sphere.coordinates import sphere_to_latlon, tangent_frame

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_POINTS = 5_000
"""Maximum number of points that a figure shows or smooths."""


def world_axes(figure: "Figure", index: int, title: str) -> "Axes":
    """Add the left (index 1) or right (2) map of the world, with its graticule every 60 and 30 degrees."""
    from matplotlib.patheffects import withStroke

    axes = figure.add_subplot(1, 2, index, projection="mollweide")
    axes.set_title(title, fontsize=12, pad=10)
    axes.set_axisbelow("line")
    axes.set_longitude_grid_ends(90)  # type: ignore[attr-defined]
    axes.grid(True, color="#b0b0b0", linewidth=0.5, alpha=0.7)
    axes.set_xticks(np.radians(np.arange(-120, 121, 60)))
    axes.set_yticks(np.radians(np.arange(-60, 61, 30)))
    axes.xaxis.set_major_formatter(lambda x, _: _degrees(x, "E", "W"))
    axes.yaxis.set_major_formatter(lambda y, _: _degrees(y, "N", "S"))
    axes.tick_params(labelsize=8, labelcolor="#444444")
    for label in axes.get_xticklabels():  # these lie on the map
        label.set(fontsize=7, path_effects=[withStroke(linewidth=2, foreground="white")])
    for spine in axes.spines.values():
        spine.set_color("#888888")
    return axes


def draw_coastlines(axes: "Axes", colour: str = "#999999", zorder: float = 0.5) -> None:
    """Draw the coastlines, below points by default."""
    from matplotlib.collections import LineCollection

    # Projected here, since matplotlib would refine every edge into sixty.
    projection, affine = axes.transProjection, axes.transAffine  # type: ignore[attr-defined]
    lines = [projection.transform(line) for line in coastlines()]
    transform = affine + axes.transAxes
    drawn = LineCollection(lines, colors=colour, linewidths=0.5, zorder=zorder, transform=transform)
    axes.add_collection(drawn, autolim=False)


@cache
def coastlines() -> list[NDArray[np.float64]]:
    """Coastlines of the world as lines of (longitude, latitude) in radians, from Natural Earth (1:110m)."""
    table = files("drift_sphere").joinpath("coastline.txt").read_text(encoding="utf-8")
    lines = (line.split(",") for line in table.splitlines() if not line.startswith("#"))
    tenths = [[[float(number) for number in point.split()] for point in line] for line in lines]
    return [np.radians(np.array(line) / 10) for line in tenths]


def map_coordinates(points: Float[Tensor, "n 3"]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Longitudes and latitudes in radians, the coordinates of matplotlib's projections."""
    latitude, longitude = torch.deg2rad(sphere_to_latlon(points)).cpu().numpy().T
    return longitude, latitude


def map_arrows(
    axes: "Axes", x: Float[Tensor, "n 3"], v: Float[Tensor, "n 3"]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Components to the right and up, on the map, of tangent vectors `v` at `x`; they keep their length."""
    tiny = 1e-4
    longitude, latitude = map_coordinates(x)
    east, north = ((v * direction).sum(-1).double().cpu().numpy() for direction in tangent_frame(x))
    length = np.hypot(east, north)
    step = tiny / np.maximum(length, np.finfo(np.float64).tiny)
    ahead = longitude + step * east / np.maximum(np.cos(latitude), tiny), latitude + step * north
    project = axes.transProjection.transform  # type: ignore[attr-defined]
    move = project(np.stack(ahead, 1)) - project(np.stack((longitude, latitude), 1))
    right, up = length * move.T / np.maximum(np.hypot(*move.T), np.finfo(np.float64).tiny)
    return right, up


def some(points: Float[Tensor, "n 3"]) -> Float[Tensor, "k 3"]:
    """At most 5,000 of the points, evenly spaced in their order."""
    return points[:: max(1, -(-len(points) // MOST_POINTS))]


def _degrees(radians: float, positive: str, negative: str) -> str:
    degrees = round(float(np.degrees(radians)))
    return f"{abs(degrees)}°{positive if degrees > 0 else negative if degrees < 0 else ''}"
