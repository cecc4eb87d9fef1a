"""Views of rotations and of the product of a sphere and a plane."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from drift_core import SO3
from jaxtyping import Float, Float64
from torch import Tensor

from drift_synthetic.data import Problem
from drift_synthetic.targets import multiply

_MOST = 5_000
"""Maximum number of points that a panel shows."""
_POINT = math.atan(0.5)
"""Angle of the fixed point from the x axis to the y axis."""
_LONGITUDE, _LATITUDE = math.radians(25), math.radians(25)
"""Point of the sphere above which it is seen."""


@dataclass(frozen=True)
class RotationView:
    """Rotations by where they take a fixed point, on a Mollweide map; the colour is the angle about it.

    Murphy et al. (2021, arXiv 2106.05965) take the point of an axis. This one lies between two, so that the
    rotations of a cube take it to the 24 corners of a truncated octahedron.
    """

    projection: str | None = "mollweide"
    size: tuple[float, float] = (4.4, 2.5)

    def draw(self, axes: Any, problem: Problem, points: Tensor, colour: str) -> None:
        """Draw at most 5,000 rotations."""
        quarter = _POINT / 2
        to_point = torch.tensor([math.cos(quarter), 0, 0, math.sin(quarter)], dtype=torch.float64)
        longitude, latitude, tilt = hopf(multiply(points[:_MOST].double(), to_point)).unbind(1)
        axes.scatter(longitude, latitude, s=5, c=tilt, cmap="hsv", vmin=-math.pi, vmax=math.pi, linewidths=0)
        axes.set(xticks=[], yticks=[])
        axes.grid(False)
        axes.set_facecolor("#f6f6f6")


def hopf(q: Float64[Tensor, "n 4"]) -> Float64[Tensor, "n 3"]:
    """Longitude and latitude of the image of the x axis, and the angle about it from the shortest way there.

    All in radians, the angle in [-pi, pi).
    """
    x, y, z = SO3.to_matrix(q)[:, :, 0].unbind(1)
    tilt = 2 * torch.atan2(q[:, 1], q[:, 0])
    tilt = torch.remainder(tilt + math.pi, 2 * math.pi) - math.pi
    return torch.stack([torch.atan2(y, x), z.clamp(-1, 1).asin(), tilt], dim=1)


@dataclass(frozen=True)
class SphereView:
    """The first three coordinates on a sphere, seen from afar; colours are those of `PlaneView`."""

    projection: str | None = None
    size: tuple[float, float] = (3.0, 3.0)

    def draw(self, axes: Any, problem: Problem, points: Tensor, colour: str) -> None:
        """Draw at most 5,000 points, those of the far side faintly."""
        from matplotlib.patches import Circle

        few = points[:_MOST].double()
        seen = from_afar(few[:, :3])
        axes.add_patch(Circle((0, 0), 1, facecolor="#f6f6f6", edgecolor="#888888", linewidth=0.8, zorder=0))
        for near, alpha in ((False, 0.1), (True, 0.8)):
            shown = (seen[:, 2] > 0) == near
            across, up, _ = seen[shown].T
            style = {"cmap": "viridis", "vmin": 0, "vmax": 1.05, "linewidths": 0}
            axes.scatter(across, up, s=5, c=radius(few)[shown], alpha=alpha, **style)
        axes.set(xlim=(-1.05, 1.05), ylim=(-1.05, 1.05), aspect="equal", xticks=[], yticks=[])
        axes.spines[:].set_visible(False)


@dataclass(frozen=True)
class PlaneView:
    """The last two coordinates in the plane, coloured by their distance from the origin."""

    projection: str | None = None
    size: tuple[float, float] = (3.0, 3.0)

    def draw(self, axes: Any, problem: Problem, points: Tensor, colour: str) -> None:
        """Draw at most 5,000 points."""
        few = points[:_MOST].double()
        reach = 1.1 * float(problem.sample(_MOST, torch.Generator())[:, 3:].abs().max())
        style = {"cmap": "viridis", "vmin": 0, "vmax": 1.05, "linewidths": 0}
        axes.scatter(*few[:, 3:].T, s=5, c=radius(few), alpha=0.8, **style)
        axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set_color("#888888")


def radius(points: Float[Tensor, "n 5"]) -> Float[Tensor, " n"]:
    """Distance from the origin in the plane."""
    return points[:, 3:].norm(dim=1)


def from_afar(x: Float64[Tensor, "n 3"]) -> Float64[Tensor, "n 3"]:
    """Coordinates across, up and forward, as seen from above a fixed point of the sphere."""
    a, b = _LONGITUDE, _LATITUDE
    axes = torch.tensor(
        [
            [-math.sin(a), math.cos(a), 0],
            [-math.sin(b) * math.cos(a), -math.sin(b) * math.sin(a), math.cos(b)],
            [math.cos(b) * math.cos(a), math.cos(b) * math.sin(a), math.sin(b)],
        ],
        dtype=torch.float64,
    )
    return x @ axes.T
