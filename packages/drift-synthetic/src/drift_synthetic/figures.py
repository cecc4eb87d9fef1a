"""Figures in the chart: samples, their evolution, flows, drift fields; each a PNG file."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from drift_core.runs.figures import DATA_COLOUR, MODEL_COLOUR, written_figure
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from torch import Tensor

from drift_synthetic.data import Checkerboard, Problem

DATA = "Data"
"""Title of the panels that are drawn in the colour of data."""

FIELD_COLOUR = "#222222"

MOST_POINTS = 5_000
"""Maximum number of points that a panel shows."""

_BACKDROP, _PANEL = "#e4e4e4", 2.1


class Row(NamedTuple):
    """A row of `grid_figure`: clouds of points of one problem, by the titles of their panels."""

    title: str
    problem: Problem
    panels: Mapping[str, Tensor]
    """Points of the problem's space, [n, d]."""


def grid_figure(rows: Sequence[Row], path: str | Path) -> None:
    """Draw clouds of points in the chart, a row for each problem or variant, over the target's outline.

    It is the figure of final samples (a column for each variant), of their evolution over training (a
    column for each step) and of a particle flow (one row). At most 5,000 points of a cloud are shown.
    """
    columns = max(len(row.panels) for row in rows)
    with written_figure(path, _PANEL * len(rows) + 0.3, _PANEL * columns + 0.3) as figure:
        grid = figure.subplots(len(rows), columns, squeeze=False)
        for i, (line, row) in enumerate(zip(grid, rows, strict=True)):
            titled = i == 0 or list(row.panels) != list(rows[i - 1].panels)
            for axes, (title, points) in zip(line, row.panels.items(), strict=False):
                chart_axes(axes, row.problem, title if titled else "")
                scatter(axes, row.problem, points, DATA_COLOUR if title == DATA else MODEL_COLOUR)
            for axes in line[len(row.panels) :]:
                axes.set_axis_off()
            line[0].set_ylabel(row.title, fontsize=9)


def field_figure(
    problem: Problem,
    x: Float[Tensor, "g d"],
    fields: Mapping[str, Float[Tensor, "g d"]],
    data: Float[Tensor, "n d"],
    path: str | Path,
) -> None:
    """Draw drift fields at points x as arrows in the chart, side by side, over the data.

    Arrows are tangent vectors mapped by the differential of the chart. Each panel has its own scale, given by
    a key: the displacement and the kernel gradient differ by the order of lengthscale^2.
    """
    u = problem.space.chart(x).numpy()
    with written_figure(path, 5.15, 4.6 * len(fields)) as figure:
        for axes, (title, v) in zip(
            figure.subplots(1, len(fields), squeeze=False)[0], fields.items(), strict=True
        ):
            chart_axes(axes, problem, title)
            scatter(axes, problem, data, DATA_COLOUR, alpha=0.25)
            arrows = problem.space.push(x, v)
            typical = float(arrows.norm(dim=1).quantile(0.9)) or 1.0
            quiver = axes.quiver(
                *u.T, *arrows.numpy().T, angles="xy", color=FIELD_COLOUR,
                width=0.0035, scale=typical * 16, minlength=0.3, headwidth=4, zorder=3,
            )  # fmt: skip
            length = float(f"{typical:.1g}")
            axes.set_xlabel(" \n ", fontsize=9)  # room for the key
            axes.quiverkey(quiver, 0.84, -0.04, length, f"|V| = {length:g}", labelpos="E")


def lattice(problem: Problem, side: int = 24) -> Float[Tensor, "g d"]:
    """Points of the space that form a square lattice in the chart, over the target and a little beyond."""
    ticks = torch.linspace(-1, 1, side, dtype=torch.float64) * extent(problem)
    return problem.space.lift(torch.cartesian_prod(ticks, ticks)).float()


def extent(problem: Problem) -> float:
    """Half the width of a square in the chart that holds the target."""
    target = problem.target
    return 1.1 * (target.half_width if isinstance(target, Checkerboard) else target.radius)


def chart_axes(axes: Axes, problem: Problem, title: str) -> None:
    """Prepare axes: the chart's square, with the black squares or the spiral of the target."""
    reach, target = 1.1 * extent(problem), problem.target
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xticks=[], yticks=[])
    axes.set_title(title, fontsize=10)
    for spine in axes.spines.values():
        spine.set_color("#888888")
    if isinstance(target, Checkerboard):
        for corner in target.corners().tolist():
            axes.add_patch(
                Rectangle(corner, target.side, target.side, color=_BACKDROP, linewidth=0, zorder=0)
            )
    else:
        t = torch.linspace(math.pi / 2, 4.5 * math.pi, 400)
        axes.plot(*target.spiral(t).numpy().T, color=_BACKDROP, linewidth=5, zorder=0)


def scatter(
    axes: Axes, problem: Problem, points: Float[Tensor, "n d"], colour: str, alpha: float = 0.5
) -> None:
    """Draw at most 5,000 of the points, evenly spaced in their order, in the chart; larger if few."""
    few = points[:: max(1, -(-len(points) // MOST_POINTS))]
    across, up = problem.space.chart(few).numpy().T
    size = min(6.0, 1.5 + 2_000 / max(1, len(few)))
    axes.scatter(across, up, s=size, c=colour, alpha=alpha, linewidths=0)
