"""Figures of samples, their evolution, flows, and drift fields in the chart; each a PNG file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from drift_core.runs.figures import DATA_COLOUR, MODEL_COLOUR, written_figure
from jaxtyping import Float
from torch import Tensor

from drift_synthetic.data import Problem
from drift_synthetic.views import chart_axes, chart_of, extent, scatter, views_of

DATA = "Data"
"""Title of the panels that are drawn in the colour of data."""

FIELD_COLOUR = "#222222"


class Row(NamedTuple):
    """A row of `grid_figure`: clouds of points of one problem, by the titles of their panels."""

    title: str
    problem: Problem
    panels: Mapping[str, Tensor]
    """Points of the problem's space, [n, d]."""


def grid_figure(rows: Sequence[Row], path: str | Path) -> None:
    """Draw clouds of points, a row for each problem or variant, in each of the views of its space.

    It is the figure of final samples (a column for each variant), of their evolution over training (a
    column for each step) and of a particle flow (one row).
    """
    columns = max(len(row.panels) for row in rows)
    lines = [(row, k, view) for row in rows for k, view in enumerate(views_of(row.problem.space))]
    widths, heights = zip(*(view.size for _, _, view in lines), strict=True)
    with written_figure(path, sum(heights) + 0.3, max(widths) * columns + 0.3) as figure:
        grid = figure.add_gridspec(len(lines), columns, height_ratios=heights)
        above: list[str] = []
        for i, (row, k, view) in enumerate(lines):
            titles = list(row.panels)
            for j, (title, points) in enumerate(row.panels.items()):
                axes = figure.add_subplot(grid[i, j], projection=view.projection)
                view.draw(axes, row.problem, points, DATA_COLOUR if title == DATA else MODEL_COLOUR)
                axes.set_title("" if titles == above else title, fontsize=10)
                if j == 0 and k == 0:
                    axes.set_ylabel(row.title, fontsize=9)
            above = titles


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
    chart = chart_of(problem)
    u = chart.chart(x).numpy()
    with written_figure(path, 5.15, 4.6 * len(fields)) as figure:
        for axes, (title, v) in zip(
            figure.subplots(1, len(fields), squeeze=False)[0], fields.items(), strict=True
        ):
            chart_axes(axes, problem)
            axes.set_title(title, fontsize=10)
            scatter(axes, problem, data, DATA_COLOUR, alpha=0.25)
            arrows = chart.push(x, v)
            typical = float(arrows.norm(dim=1).quantile(0.9)) or 1.0
            quiver = axes.quiver(
                *u.T, *arrows.numpy().T, angles="xy", color=FIELD_COLOUR,
                width=0.0035, scale=typical * 16, minlength=0.3, headwidth=4, zorder=3,
            )  # fmt: skip
            length = float(f"{typical:.1g}")
            axes.set_xlabel(" \n ", fontsize=9)  # room for the key
            below = -0.08 if problem.target is None else -0.04  # ticks have labels
            axes.quiverkey(quiver, 0.84, below, length, f"|V| = {length:g}", labelpos="E")


def lattice(problem: Problem, side: int = 24) -> Float[Tensor, "g d"]:
    """Points of the space that form a square lattice in the chart, over the target and a little beyond."""
    ticks = torch.linspace(-1, 1, side, dtype=torch.float64) * extent(problem)
    return problem.space.lift(torch.cartesian_prod(ticks, ticks)).float()
