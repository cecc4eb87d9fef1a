"""Figure 4 of the paper: displacement against kernel gradient as the kernel goes from Laplace to Gaussian."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from itertools import chain, product
from pathlib import Path
from typing import Any, NamedTuple

from drift_core.files import write_json
from drift_core.runs import page
from drift_core.runs.figures import DATA_COLOUR, MODEL_COLOUR, written_figure
from drift_core.runs.study import Cost, StudyReport, mean_cost
from matplotlib.axes import Axes

from drift_synthetic.study import (
    DIRECTIONS,
    Budget,
    Direction,
    compare,
    compared,
    every_figure,
    folder_of,
    make_cell,
    run_variants,
)

METRICS = ("c2st", "sliced_wasserstein")

NUS = {"quick": (0.5, 1.5, 2.5, 10.0, math.inf), "full": (0.5, 1.5, 2.5, 3.5, 10.0, 50.0, math.inf)}
"""Smoothness of the Matern kernels by budget, from 1/2 (Laplace) to infinity (Gaussian)."""

BUDGETS = {
    "quick": Budget(400, 512, 3, 2, ("0.2", "0.5")),
    "full": Budget(6_000, 1_024, 5, 3, ("0.1", "0.2", "0.5", "1:0.03"), (0.05, 1.0, 10.0)),
}
"""Budgets by name: minutes on two cores, and a day."""


class Point(NamedTuple):
    """A point of the figure."""

    lengthscale: str
    nu: float
    direction: Direction

    @property
    def folder(self) -> str:
        """Folder of its runs."""
        return folder_of("nu", f"{self.nu:g}", self.direction, self.lengthscale)

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of its runs: the swiss roll in the plane."""
        return {"target": "swiss-roll", "space": "plane", "kernel": "matern", **self._asdict()}


def run_figure4(budget: Budget, nus: Sequence[float], out: Path, workers: int) -> StudyReport:
    """Tune, train and score both directions at every nu, and write figure4.json, .md and .png under `out`.

    Step sizes are chosen by C2ST on the validation stream, all else is as in table 1.
    """
    points = [Point(*labels) for labels in product(budget.lengthscales, nus, DIRECTIONS)]
    cells = {point: make_cell(point, budget, METRICS, "c2st", tuning_draws=1) for point in points}
    chosen, results = run_variants(cells, budget.seeds, out, workers)
    rows = []
    for lengthscale, nu in product(budget.lengthscales, nus):
        pair = {d: Point(lengthscale, nu, d) for d in DIRECTIONS}
        row: dict[str, Any] = {
            "lengthscale": lengthscale,
            "nu": nu if math.isfinite(nu) else "inf",
            "step_size": {d: chosen[point].settings["step_size"] for d, point in pair.items()},
        }
        found = {d: results[point] for d, point in pair.items()}
        row["minutes"] = {d: mean_cost(results[point]).minutes for d, point in pair.items()}
        rows.append(row | {name: compare(found, name) for name in METRICS})
    write_json(out / "figure4.json", {"budget": asdict(budget), "points": rows})
    draw(rows, out / "figures" / "figure4.png")
    cost = mean_cost(chain.from_iterable(results.values()))
    report = make_report(rows, budget, cost, out / "figures")
    report.write(out / "figure4.md")
    return report


def make_report(rows: Sequence[dict[str, Any]], budget: Budget, cost: Cost, figures: Path) -> StudyReport:
    """The figure, and its numbers as a table."""
    about = (
        "C2ST accuracy (0.5 is best), swiss roll in the plane, Matern kernels: mean ± standard deviation "
        f"over {budget.seeds} seeds; {budget.steps:,} steps of {budget.batch_size:,}. {cost}"
    )
    cells = [
        (row["lengthscale"], page.Cell(str(row["nu"]), float(row["nu"])), *compared(row["c2st"], 3))
        for row in rows
    ]
    columns = ("lengthscale", "nu", *DIRECTIONS, "floor", "better")
    title = "Figure 4: from Laplace to Gaussian"
    return StudyReport(title, [about], [page.Table(columns, cells)], every_figure(figures))


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw C2ST accuracy against nu for both directions, with standard errors, one panel per lengthscale."""
    lengthscales = list(dict.fromkeys(row["lengthscale"] for row in rows))
    with written_figure(path, 3.4, 4.2 * len(lengthscales) + 0.4) as figure:
        grid = figure.subplots(1, len(lengthscales), sharey=True, squeeze=False)[0]
        for axes, lengthscale in zip(grid, lengthscales, strict=True):
            _draw_panel(axes, [row for row in rows if row["lengthscale"] == lengthscale])
            axes.set_title(f"Lengthscale {lengthscale}")
        grid[0].set_ylabel("C2ST accuracy")
        grid[0].legend(frameon=False)


def _draw_panel(axes: Axes, rows: Sequence[dict[str, Any]]) -> None:
    ticks = range(len(rows))
    for direction, colour, marker in zip(DIRECTIONS, (DATA_COLOUR, MODEL_COLOUR), "so", strict=True):
        found = [row["c2st"][direction] for row in rows]
        means, errors = [e["mean"] for e in found], [e["sd"] / math.sqrt(e["n"]) for e in found]
        axes.errorbar(ticks, means, errors, color=colour, marker=marker, capsize=3, label=direction)
    floor = [row["c2st"]["gradient"]["floor"] for row in rows]
    axes.plot(ticks, floor, color="#888888", linestyle="--", label="floor")
    axes.set_xticks(ticks, ["Gaussian" if row["nu"] == "inf" else f"{row['nu']:g}" for row in rows])
    axes.set_xlabel("nu")
    axes.spines[["top", "right"]].set_visible(False)
