"""Tables of a study: rows are methods, columns data sets, and cells are trained with several seeds."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

from drift_core.runs.study.cells import Cell, Choice, choose, run_seeds
from drift_core.runs.study.statistics import Estimate, differ, estimate, paired_p_value
from drift_core.runs.study.trials import DIVERGED, Cost, Result, mean_cost

Place = tuple[str, str]
"""A row and a column."""


@dataclass(frozen=True)
class Shown:
    """A metric of a table."""

    name: str
    title: str
    best: Literal["lower", "higher", ""] = "lower"
    """Which values are better; "" where neither are."""
    digits: int = 3
    """Decimal places."""
    ratio: bool = True
    """Whether the ratio to the floor means something; of a logarithm it does not."""


@dataclass(frozen=True)
class Table:
    """A table of the paper: what is trained for each of its places, and what was published there."""

    name: str
    """Name of its files."""
    title: str
    about: str
    """What the numbers are of: the budget, the choice of settings, what differs from the paper."""
    cells: Mapping[Place, Cell]
    """What is trained for each place; rows and columns stand in the order of their first cells."""
    metrics: Sequence[Shown]
    published: Mapping[str, Mapping[Place, float]] = field(default_factory=dict)
    """Published values by metric and place; places without a cell are rows of published values alone."""
    seeds: int = 3
    anchors: Collection[str] = ()
    """Rows for orientation, such as noise, which are not compared with the others."""


@dataclass(frozen=True)
class Entry:
    """What was found for a place of a table."""

    row: str
    column: str
    choice: str
    """Label of the settings that were chosen on validation data; empty: there was no choice."""
    metrics: Mapping[str, Estimate]
    """Metrics that are defined for all seeds."""
    cost: Cost
    """Of a run, mean over seeds."""
    diverged: int = 0
    """Seeds whose training diverged; their cell has no metrics."""


@dataclass(frozen=True)
class Findings:
    """A finished table."""

    table: Table
    entries: Sequence[Entry]

    def column(self, column: str, metric: str) -> dict[str, Estimate]:
        """Estimates of a metric in a column, by row."""
        return {
            entry.row: entry.metrics[metric]
            for entry in self.entries
            if entry.column == column and metric in entry.metrics
        }

    def leaders(self, column: str, metric: Shown) -> set[str]:
        """The row with the best mean in a column, and all that are not significantly worse; no anchors."""
        every = self.column(column, metric.name)
        found = {row: e for row, e in every.items() if row not in self.table.anchors}
        if not found or not metric.best:
            return set()
        sign = 1 if metric.best == "lower" else -1
        best = min(found, key=lambda row: sign * found[row].mean)
        return {row for row, other in found.items() if row == best or not differ(found[best], other)}

    def floor(self, column: str, metric: str) -> tuple[float, float] | None:
        """Floor of a metric in a column, and the standard deviation of one draw; None where there is none.

        It is the same in all rows, whose seeds are the same.
        """
        for e in self.column(column, metric).values():
            if e.floor is not None and e.floor_sd is not None:
                return e.floor, e.floor_sd
        return None

    def comparisons(self) -> Iterator[dict[str, Any]]:
        """Every pair of rows of a column: difference of the means, and p-value paired by seed."""
        for metric in self.table.metrics:
            for column in columns_of(self.table):
                for (a, x), (b, y) in combinations(self.column(column, metric.name).items(), 2):
                    p = paired_p_value(x.values, y.values)
                    pair = {"metric": metric.name, "column": column, "rows": [a, b]}
                    yield {**pair, "difference": x.mean - y.mean, "p": p}


def rows_of(table: Table) -> list[str]:
    """Rows in order; those of published values alone come last."""
    published = (place for places in table.published.values() for place in places)
    return list(dict.fromkeys(row for row, _ in (*table.cells, *published)))


def columns_of(table: Table) -> list[str]:
    """Columns in order."""
    return list(dict.fromkeys(column for _, column in table.cells))


def check_data(table: Table) -> None:
    """Load the data of all cells once, before anything is trained; raises ValueError or OSError as `load`."""
    loaded = set()
    for cell in table.cells.values():
        data = cell.domain.name, str(getattr(cell.config, "data", ""))
        if data not in loaded:
            cell.domain.load(cell.config)
            loaded.add(data)


def fill_table(table: Table, out: Path, workers: int) -> Findings:
    """Choose, train and score all cells. Raises as `check_data` and `run_trials`."""
    check_data(table)
    chosen = choose(table.cells, out, workers)
    results = run_seeds(table.cells, chosen, table.seeds, out, workers)
    entries = [_entry(place, chosen[place], results[place], table) for place in table.cells]
    return Findings(table, entries)


def as_json(findings: Findings) -> dict[str, Any]:
    """Everything that was found, and all comparisons, for `write_json`."""
    table = findings.table
    cells = []
    for entry in findings.entries:
        metrics = {
            name: {**asdict(e), "ratio": e.ratio, "published": _published(table, name, entry)}
            for name, e in entry.metrics.items()
        }
        cells.append({**asdict(entry), "metrics": metrics})
    return {
        "name": table.name,
        "title": table.title,
        "about": table.about,
        "seeds": table.seeds,
        "cells": cells,
        "comparisons": list(findings.comparisons()),
    }


def _published(table: Table, metric: str, entry: Entry) -> float | None:
    return table.published.get(metric, {}).get((entry.row, entry.column))


def _entry(place: Place, choice: Choice, results: Sequence[Result], table: Table) -> Entry:
    metrics = [result.metrics for result in results]
    found = {
        shown.name: estimate(metrics, shown.name)
        for shown in table.metrics
        if all(shown.name in m and m[shown.name].value is not None for m in metrics)
    }
    diverged = sum(DIVERGED in m for m in metrics)
    return Entry(*place, choice.label, found, mean_cost(results), diverged)
