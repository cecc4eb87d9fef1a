"""How clouds of points of each space are drawn."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from drift_synthetic.chart import ChartSpace
from drift_synthetic.data import Problem
from drift_synthetic.globes import PlaneView, RotationView, SphereView
from drift_synthetic.solids import DonutView, MeshView
from drift_synthetic.space import Space
from drift_synthetic.targets import Checkerboard, SwissRoll

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_POINTS = 5_000
"""Maximum number of points that a panel shows."""

_BACKDROP = "#e4e4e4"


@runtime_checkable
class View(Protocol):
    """A panel of a figure; a space has one or several."""

    @property
    def projection(self) -> str | None:
        """Projection of matplotlib's axes."""

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of the panel in inches."""

    def draw(self, axes: Any, problem: Problem, points: Tensor, colour: str) -> None:
        """Draw points [n, d] of the problem's space, in the colour where colours say nothing else."""


@dataclass(frozen=True)
class ChartView:
    """Points in the chart, over the target's outline."""

    projection: str | None = None
    size: tuple[float, float] = (2.1, 2.1)

    def draw(self, axes: "Axes", problem: Problem, points: Tensor, colour: str) -> None:
        """Draw at most 5,000 points."""
        chart_axes(axes, problem)
        scatter(axes, problem, points, colour)


VIEWS: dict[str, tuple[View, ...]] = {
    "torus": (ChartView(size=(3.0, 3.0)), DonutView()),
    "so3": (RotationView(),),
    "product": (SphereView(), PlaneView()),
    "mesh": (MeshView(),),
}
"""Views of the spaces that are not drawn in a chart alone."""


def views_of(space: Space) -> tuple[View, ...]:
    """Views of a space."""
    return VIEWS.get(space.name, (ChartView(),))


def chart_of(problem: Problem) -> ChartSpace:
    """The space of a problem, which has a chart; raises TypeError if it has none."""
    if not isinstance(problem.space, ChartSpace):
        raise TypeError(f"the {problem.space.name} has no chart")
    return problem.space


def extent(problem: Problem) -> float:
    """Half the width of a square in the chart that holds the target, or the points of a file."""
    target, chart = problem.target, chart_of(problem)
    if isinstance(target, Checkerboard):
        half_width = target.half_width
    elif isinstance(target, SwissRoll):
        half_width = target.radius
    else:
        half_width = float(chart.chart(problem.sample(MOST_POINTS, torch.Generator())).abs().max())
    return min(chart.limit, 1.1 * half_width)


def chart_axes(axes: "Axes", problem: Problem) -> None:
    """Prepare axes: the chart's square, with the black squares or the spiral of the target, or with ticks."""
    reach, target = min(chart_of(problem).limit, 1.1 * extent(problem)), problem.target
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    if target is None:
        axes.locator_params(nbins=5)
        axes.tick_params(labelsize=7, color="#888888")
    else:  # whose outline is drawn
        axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_color("#888888")
    if isinstance(target, Checkerboard):
        from matplotlib.patches import Rectangle

        for corner in target.corners().tolist():
            axes.add_patch(
                Rectangle(corner, target.side, target.side, color=_BACKDROP, linewidth=0, zorder=0)
            )
    elif isinstance(target, SwissRoll):
        t = torch.linspace(math.pi / 2, 4.5 * math.pi, 400)
        axes.plot(*target.spiral(t).numpy().T, color=_BACKDROP, linewidth=5, zorder=0)


def scatter(
    axes: "Axes", problem: Problem, points: Float[Tensor, "n d"], colour: str, alpha: float = 0.5
) -> None:
    """Draw at most 5,000 of the points, evenly spaced in their order, in the chart; larger if few."""
    few = evenly(points)
    across, up = problem.space.chart(few).numpy().T
    size = min(6.0, 1.5 + 2_000 / max(1, len(few)))
    axes.scatter(across, up, s=size, c=colour, alpha=alpha, linewidths=0)


def evenly(points: Float[Tensor, "n d"], most: int = MOST_POINTS) -> Float[Tensor, "m d"]:
    """At most so many of the points, evenly spaced in their order."""
    return points[:: max(1, -(-len(points) // most))]
