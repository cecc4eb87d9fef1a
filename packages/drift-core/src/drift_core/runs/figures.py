"""Helpers for the figures of all domains; matplotlib comes with `drift-core[figures]`."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from drift_core.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Record = Mapping[str, float | int | None]
"""A line of metrics.jsonl."""

DATA_COLOUR, MODEL_COLOUR, THIRD_COLOUR = "#0072B2", "#D55E00", "#009E73"
"""Blue, vermillion and green of the palette of Okabe and Ito (2008), safe for colour-blind readers."""

PANELS = {
    "Loss": {"loss": "loss"},
    "Norm of the field": {
        "drift_norm": "drift", "attraction_norm": "attraction", "repulsion_norm": "repulsion"
    },
    "Effective sample size": {"ess": "references"},
    "Fraction of clipped steps": {"clipped": "clipped"},
}  # fmt: skip
"""Keys of metrics.jsonl, with labels, that are drawn in each panel."""
LOGARITHMIC = ("Loss", "Norm of the field")
"""Panels on a logarithmic axis."""


@contextmanager
def written_figure(path: str | Path, height: float, width: float = 11.0) -> "Iterator[Figure]":
    """Figure (size in inches) that is written atomically to the PNG file `path` at the end."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    yield figure
    with atomic_path(Path(path)) as part:
        figure.savefig(part, dpi=150, format="png")


def training_figure(records: Sequence[Record], path: str | Path) -> None:
    """Draw loss, field and effective sample size against the step, from the lines of metrics.jsonl.

    Records have the keys step, loss, drift_norm, attraction_norm, repulsion_norm, ess and clipped; values
    that are missing or not finite are left out.
    """
    with written_figure(path, 6.0) as figure:
        grid = figure.subplots(2, 2, sharex=True).flat
        for axes, (title, curves) in zip(grid, PANELS.items(), strict=True):
            _curves(axes, records, curves, logarithmic=title in LOGARITHMIC)
            axes.set_title(title, fontsize=11)
        for axes in figure.axes[2:]:
            axes.set_xlabel("step")


def _curves(axes: "Axes", records: Sequence[Record], curves: Mapping[str, str], logarithmic: bool) -> None:
    """Draw the curves {key: label} against the step, from 0 or, if possible, on a logarithmic axis."""
    drawn: list[float] = []
    for (key, label), colour in zip(curves.items(), (DATA_COLOUR, MODEL_COLOUR, THIRD_COLOUR), strict=False):
        found = [(record["step"], record.get(key)) for record in records]
        points = [(s, v) for s, v in found if s is not None and v is not None and np.isfinite(v)]
        steps, values = np.array(points).reshape(-1, 2).T
        axes.plot(steps, values, color=colour, linewidth=1.4, label=label, clip_on=False, zorder=3)
        drawn += values.tolist()
    if logarithmic and drawn and min(drawn) > 0:
        axes.set_yscale("log")
    else:
        axes.set_ylim(0, 1.05 * max(drawn, default=0) or 1)
    if len(curves) > 1:
        axes.legend(frameon=False)
    axes.grid(True, color="#dddddd", linewidth=0.5)
    axes.spines[["top", "right"]].set_visible(False)
