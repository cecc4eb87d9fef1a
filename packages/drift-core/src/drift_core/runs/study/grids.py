"""The grids of a table of the paper: rows are methods, and published values stand beside ours."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from drift_core.runs import page
from drift_core.runs.study.report import StudyReport
from drift_core.runs.study.statistics import LEVEL, Estimate
from drift_core.runs.study.table import Findings, Shown, columns_of, rows_of

Heads = Sequence[tuple[str, str, Shown]]
"""Title, column and metric of each column of a grid."""

_NOTHING = page.Cell("", math.nan)


def report_of(findings: Findings, figure: Path) -> StudyReport:
    """Text, grids and the figure of a table.

    There is a grid for each metric; a table of one column has one grid, whose columns are the metrics. A last
    grid has the chosen settings and the minutes of each cell.
    """
    table, columns = findings.table, columns_of(findings.table)
    if len(columns) == 1:
        heads = [(heading(shown), columns[0], shown) for shown in table.metrics]
        grids = [_grid(findings, "", heads)]
    else:
        grids = [
            _grid(findings, heading(shown), [(column, column, shown) for column in columns])
            for shown in table.metrics
        ]
    caption = "Means and standard deviations over seeds; anchors may lie beyond the axis."
    tables = [*grids, _costs(findings)]
    return StudyReport(table.title, [table.about, _legend(findings)], tables, [page.Figure(figure, caption)])


def heading(shown: Shown) -> str:
    """Title of a metric, with what is better."""
    return f"{shown.title} ({shown.best} is better)" if shown.best else shown.title


def number(value: float | None, digits: int) -> page.Cell:
    """A number, or nothing; no minus before a zero."""
    if value is None:
        return _NOTHING
    text = f"{value:,.{digits}f}"
    return page.Cell(text if text.strip("-0.") else text.removeprefix("-"), value)


def described(estimate: Estimate | None, shown: Shown, strong: bool) -> page.Cell:
    """Mean ± standard deviation, and in brackets the ratio to the floor where there is one."""
    if estimate is None:
        return _NOTHING
    ratio = f" ({estimate.ratio:.2f})" if shown.ratio and estimate.ratio is not None else ""
    return page.Cell(_spread(estimate.mean, estimate.sd, shown.digits) + ratio, estimate.mean, strong)


def _spread(mean: float, sd: float, digits: int) -> str:
    return f"{number(mean, digits).text} ± {number(sd, digits).text}"


def _legend(findings: Findings) -> str:
    processors = dict.fromkeys(entry.cost.processor or "unknown" for entry in findings.entries)
    anchors = findings.table.anchors and f"; not compared: {', '.join(findings.table.anchors)}"
    return (
        f"Mean ± standard deviation over {findings.table.seeds} seeds; in brackets the ratio to the floor, "
        "what a perfect generator would score (± the standard deviation of one draw). Bold: the best row, "
        f"and those that are not significantly worse (paired t-test over seeds, {LEVEL:.0%}"
        f"{anchors or ''}). "
        f"Processor: {', '.join(processors)}."
    )


def _grid(findings: Findings, caption: str, heads: Heads) -> page.Table:
    published, titles = findings.table.published, ["method"]
    for title, _, shown in heads:
        titles += [title, "published"] if shown.name in published else [title]
    rows = [[page.Cell(row), *_cells(findings, row, heads)] for row in rows_of(findings.table)]
    rows = [row for row in rows if any(cell.text for cell in row[1:])]
    return page.Table(titles, [*rows, [page.Cell("floor"), *_floors(findings, heads)]], caption)


def _cells(findings: Findings, row: str, heads: Heads) -> Iterator[page.Cell]:
    published = findings.table.published
    for _, column, shown in heads:
        found = findings.column(column, shown.name).get(row)
        yield described(found, shown, row in findings.leaders(column, shown))
        if shown.name in published:
            yield number(published[shown.name].get((row, column)), shown.digits)


def _floors(findings: Findings, heads: Heads) -> Iterator[page.Cell]:
    for _, column, shown in heads:
        floor = findings.floor(column, shown.name)
        yield page.Cell(_spread(*floor, shown.digits), floor[0]) if floor else _NOTHING
        if shown.name in findings.table.published:
            yield _NOTHING


def _costs(findings: Findings) -> page.Table:
    columns = columns_of(findings.table)
    rows: dict[str, dict[str, page.Cell]] = {}
    for entry in findings.entries:
        minutes = "" if entry.cost.minutes is None else f"{entry.cost.minutes:.2g} min"
        diverged = f"{entry.diverged} of {findings.table.seeds} seeds diverged" if entry.diverged else ""
        text = ", ".join(filter(None, [entry.choice, minutes, diverged]))
        rows.setdefault(entry.row, {})[entry.column] = page.Cell(text)
    cells = [
        [page.Cell(row), *(found.get(column, _NOTHING) for column in columns)] for row, found in rows.items()
    ]
    caption = (
        "Settings chosen on validation data, where there was a choice, and CPU minutes (GPU: minutes) a run"
    )
    return page.Table(["method", *columns], cells, caption)
