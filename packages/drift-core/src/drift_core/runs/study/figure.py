"""Tables of a study as figures."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from drift_core.runs.figures import DATA_COLOUR, MODEL_COLOUR, THIRD_COLOUR, written_figure
from drift_core.runs.study.table import Findings, Shown, Table, columns_of, rows_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

_PUBLISHED, _FLOOR = "#222222", "#888888"
_ANCHOR = THIRD_COLOUR
_NEITHER = "#777777"
"""Of metrics whose values are neither better nor worse."""


def table_figure(findings: Findings, path: Path) -> None:
    """Draw each metric and data set as a panel: means and standard deviations by row, floors, published."""
    table, columns = findings.table, columns_of(findings.table)
    names = rows_of(table)
    panels = [(shown, column) for shown in table.metrics for column in columns]
    across = len(columns) if len(columns) > 1 else min(4, len(panels))
    down = -(-len(panels) // across)
    height, width = down * (0.24 * len(names) + 0.75) + 0.4, 2.1 + 2.3 * across
    with written_figure(path, height, width) as figure:
        grid = figure.subplots(down, across, squeeze=False, sharey=True)
        for axes, (shown, column) in zip(grid.flat, panels, strict=False):
            _draw_panel(axes, findings, shown, column)
        for axes in grid.flat[len(panels) :]:
            axes.set_axis_off()
        grid[0, 0].set_yticks(range(len(names)), names)
        grid[0, 0].invert_yaxis()
        marks = _legend(table)
        figure.legend(
            list(marks.values()), list(marks), loc="outside lower center", ncols=len(marks), frameon=False
        )


def _draw_panel(axes: "Axes", findings: Findings, shown: Shown, column: str) -> None:
    """Draw a panel, as wide as all rows but anchors need."""
    table, found = findings.table, findings.column(column, shown.name)
    leaders, published = findings.leaders(column, shown), table.published.get(shown.name, {})
    seen: list[float] = []
    for y, row in enumerate(rows_of(table)):
        if row in found:
            other = DATA_COLOUR if shown.best else _NEITHER
            colour = MODEL_COLOUR if row in leaders else _ANCHOR if row in table.anchors else other
            e = found[row]
            axes.errorbar(e.mean, y, xerr=e.sd, color=colour, marker="o", markersize=4, capsize=2)
            seen += [] if row in table.anchors else [e.mean - e.sd, e.mean + e.sd]
        if (row, column) in published:
            axes.plot(published[row, column], y, "x", color=_PUBLISHED, markersize=5)
            seen.append(published[row, column])
    if floor := findings.floor(column, shown.name):
        low, high = floor[0] - floor[1], floor[0] + floor[1]
        axes.axvline(floor[0], color=_FLOOR, linewidth=1, zorder=0)
        axes.axvspan(low, high, color=_FLOOR, alpha=0.15, linewidth=0, zorder=0)
        seen += [low, high]
    _finish(axes, shown.title if len(columns_of(table)) == 1 else f"{shown.title}, {column}", seen)


def _finish(axes: "Axes", title: str, seen: Sequence[float]) -> None:
    if seen:
        margin = 0.06 * (max(seen) - min(seen)) or 1.0
        axes.set_xlim(min(seen) - margin, max(seen) + margin)
    axes.set_title(title, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.locator_params(axis="x", nbins=4)
    axes.ticklabel_format(axis="x", scilimits=(-3, 4))
    axes.xaxis.offsetText.set_fontsize(8)
    axes.grid(True, axis="y", color="#dddddd", linewidth=0.5)
    axes.spines[["top", "right"]].set_visible(False)


def _legend(table: Table) -> dict[str, "Line2D"]:
    """What the marks of a table are, by label."""
    from matplotlib.lines import Line2D

    def mark(colour: str, marker: str = "o") -> "Line2D":
        return Line2D([], [], color=colour, marker=marker, linestyle="none")

    return {
        "best, or not significantly worse": mark(MODEL_COLOUR),
        "worse": mark(DATA_COLOUR),
        **({} if all(shown.best for shown in table.metrics) else {"neither": mark(_NEITHER)}),
        **({"anchor": mark(_ANCHOR)} if table.anchors else {}),
        **({"published": mark(_PUBLISHED, "x")} if table.published else {}),
        "floor ± 1 sd of a draw": Line2D([], [], color=_FLOOR),
    }
