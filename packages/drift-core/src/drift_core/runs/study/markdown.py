"""Tables of a study as Markdown."""

from collections.abc import Sequence
from typing import NamedTuple

from drift_core.runs.study.statistics import LEVEL, Estimate
from drift_core.runs.study.table import Findings, Shown, columns_of, rows_of


class Block(NamedTuple):
    """One grid of a table: for each of its columns a title, a data set and a metric."""

    title: str
    columns: list[tuple[str, str, Shown]]


def markdown(findings: Findings) -> str:
    """The table: what it is of, a grid for each metric, and the settings and minutes of each cell.

    A table of one data set has one grid, whose columns are the metrics.
    """
    table = findings.table
    parts = [f"**{table.title}**", table.about, _legend(findings)]
    for block in blocks(findings):
        parts.append("\n".join(filter(None, [block.title, block.title and "", *_lines(findings, block)])))
    parts.append(_costs(findings))
    return "\n\n".join(parts) + "\n"


def blocks(findings: Findings) -> list[Block]:
    """Grids of a table: one for each metric, or of all metrics where there is one data set."""
    table, columns = findings.table, columns_of(findings.table)
    if len(columns) == 1:
        return [Block("", [(heading(shown), columns[0], shown) for shown in table.metrics])]
    return [
        Block(f"**{heading(shown)}**", [(column, column, shown) for column in columns])
        for shown in table.metrics
    ]


def heading(shown: Shown) -> str:
    """Title of a metric, with what is better."""
    return f"{shown.title} ({shown.best} is better)" if shown.best else shown.title


def number(value: float | None, digits: int) -> str:
    """A number, or nothing; no minus before a zero."""
    if value is None:
        return ""
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def described(estimate: Estimate, digits: int) -> str:
    """Mean ± standard deviation, and the ratio to the floor in brackets where there is one."""
    ratio = "" if estimate.ratio is None else f" ({estimate.ratio:.2f})"
    return f"{number(estimate.mean, digits)} ± {number(estimate.sd, digits)}{ratio}"


def _legend(findings: Findings) -> str:
    seeds = findings.table.seeds
    processors = sorted({entry.processor for entry in findings.entries if entry.processor})
    return (
        f"Mean ± standard deviation over {seeds} seeds, in brackets the ratio to the floor, which is what a "
        "perfect generator would score (± the standard deviation of one draw). Bold: the best row, and all "
        f"that are not significantly worse (paired t-test over seeds, {LEVEL:.0%}). "
        f"Processor: {', '.join(processors) or 'not recorded'}."
    )


def _lines(findings: Findings, block: Block) -> list[str]:
    table, heads = findings.table, [""]
    for title, _, shown in block.columns:
        heads += [title, "published"] if shown.name in table.published else [title]
    lines = [heads, ["---"] * len(heads)]
    leaders = {title: findings.leaders(column, shown) for title, column, shown in block.columns}
    for row in rows_of(table):
        cells = [row]
        for title, column, shown in block.columns:
            found = findings.column(column, shown.name).get(row)
            text = described(found, shown.digits) if found else ""
            cells.append(f"**{text}**" if row in leaders[title] else text)
            if shown.name in table.published:
                cells.append(number(table.published[shown.name].get((row, column)), shown.digits))
        if any(cells[1:]):
            lines.append(cells)
    return [f"| {' | '.join(cells)} |" for cells in [*lines, _floors(findings, block)]]


def _floors(findings: Findings, block: Block) -> list[str]:
    cells = ["floor"]
    for _, column, shown in block.columns:
        floor = findings.floor(column, shown.name)
        cells.append(f"{number(floor[0], shown.digits)} ± {number(floor[1], shown.digits)}" if floor else "")
        cells += [""] if shown.name in findings.table.published else []
    return cells


def _costs(findings: Findings) -> str:
    """Chosen settings and minutes of a run, by row and column."""
    columns = columns_of(findings.table)
    rows: dict[str, dict[str, str]] = {}
    for entry in findings.entries:
        minutes = "" if entry.minutes is None else f"{entry.minutes:.2g}"
        rows.setdefault(entry.row, {})[entry.column] = (
            f"{entry.choice}; {minutes}" if entry.choice else minutes
        )
    lines: list[Sequence[str]] = [["", *columns], ["---"] * (1 + len(columns))]
    lines += [[row, *(found.get(column, "") for column in columns)] for row, found in rows.items()]
    title = "**Settings chosen on validation data, where there was a choice; minutes of a run**"
    return "\n".join([title, "", *(f"| {' | '.join(cells)} |" for cells in lines)])
