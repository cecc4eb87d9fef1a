"""Table 1 of the paper: direction and geometry, crossed, on two targets and two manifolds."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import lru_cache, partial
from itertools import chain, groupby, product
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import torch
from drift_core.files import write_json
from drift_core.flow import particle_flow
from drift_core.runs import page
from drift_core.runs.domain import untrained
from drift_core.runs.main import load_run
from drift_core.runs.study import TUNING_SEED, Choice, Cost, Result, StudyReport, estimate, mean_cost
from drift_core.seeds import generator_for

from drift_synthetic.data import make_problem
from drift_synthetic.domain import DOMAIN, SyntheticConfig, evolution, fields_on_lattice, manifold_of
from drift_synthetic.figures import DATA, Row, field_figure, grid_figure
from drift_synthetic.model import Geometry
from drift_synthetic.study import (
    DIRECTIONS,
    VALIDATION,
    Budget,
    Direction,
    compare,
    compared,
    every_figure,
    folder_of,
    make_cell,
    run_variants,
    score_with_validation,
)

Target = Literal["checkerboard", "swiss-roll"]
Manifold = Literal["sphere", "hyperboloid"]

GEOMETRIES: tuple[Geometry, ...] = ("euclidean", "intrinsic")

METRICS = {
    "sliced_wasserstein": "Sliced Wasserstein-2 (lower is better)",
    "tile_accuracy": "Tile accuracy (higher is better)",
}
"""Metrics of the table."""

TUNED_BY = "sliced_wasserstein"
"""Metric by which settings are chosen."""

FLOW_STEPS = (0, 20, 100, 300)
"""Steps at which the particle flow is drawn, which has its own lengthscale and step size."""

BUDGETS = {
    "quick": Budget(300, 512, 3, 3, ("0.2", "0.6"), tuning_settings={"steps": 80, "warmup_steps": 20}),
    "full": Budget(6_000, 1_024, 5, 20, ("0.1", "0.2", "0.4", "0.6", "0.6:0.02"), (0.05, 1.0, 10.0)),
}
"""Budgets by name: minutes on two cores, and a day. Lengthscales are in units of `median_distance`."""


class Cell(NamedTuple):
    """A cell of the table."""

    target: Target
    space: Manifold
    geometry: Geometry
    direction: Direction
    lengthscale: str

    @property
    def folder(self) -> str:
        """Folder of its runs."""
        return folder_of(*self)

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of its runs."""
        unit = median_distance(self.target, self.space, self.geometry)
        lengthscale = ":".join(f"{float(end) * unit:.4g}" for end in self.lengthscale.split(":"))
        return self._asdict() | {"kernel": "laplace", "lengthscale": lengthscale}


@lru_cache
def median_distance(target: Target, space: Manifold, geometry: Geometry) -> float:
    """Median distance between points of a target, straight in ambient coordinates or on the manifold.

    It is the unit of lengthscales, which makes them comparable between geometries.
    """
    problem = make_problem(target, space)
    points = problem.sample(1_000, generator_for(TUNING_SEED))
    r = manifold_of(problem, geometry).cdist(points, points)
    return float(r[~torch.eye(len(r), dtype=torch.bool)].median())


def cells_of(budget: Budget) -> list[Cell]:
    """All cells of the table."""
    axes = (get_args(Target), get_args(Manifold), GEOMETRIES, DIRECTIONS)
    return [Cell(*labels) for labels in product(*axes, budget.lengthscales)]


def run_table1(budget: Budget, out: Path, workers: int) -> StudyReport:
    """Tune, train, score and draw all cells; write table1.json, table1.md and figures under `out`.

    Directions share the kernel, and are compared at the same lengthscales. Their magnitudes differ, so each
    takes the step size with the best sliced Wasserstein distance on the validation stream, with a separate
    seed. It is then trained with all other seeds and scored on both streams. An interrupted study
    continues run by run. Raises as `run_trials`.
    """
    final = partial(score_with_validation, names=tuple(METRICS), validated=TUNED_BY)
    cells = {
        cell: replace(make_cell(cell, budget, METRICS, TUNED_BY), score=final) for cell in cells_of(budget)
    }
    chosen, results = run_variants(cells, budget.seeds, out, workers)
    rows = list(_rows(chosen, results))
    write_json(out / "table1.json", {"budget": asdict(budget), "rows": rows})
    draw_figures(budget, list(chosen), out)
    cost = mean_cost(chain.from_iterable(results.values()))
    report = make_report(rows, budget, cost, out / "figures")
    report.write(out / "table1.md")
    return report


def best_lengthscale(results: Mapping[Cell, Sequence[Result]], cell: Cell) -> Cell:
    """The cell with the lengthscale that did best on validation over the seeds, all else equal."""

    def found(cell: Cell) -> float:
        return estimate([result.metrics for result in results[cell]], VALIDATION).mean

    return min(
        (other for other in results if other._replace(lengthscale=cell.lengthscale) == cell), key=found
    )


def _rows(chosen: Mapping[Cell, Choice], results: Mapping[Cell, list[Result]]) -> Iterator[dict[str, Any]]:
    """Both directions at each lengthscale, and each at its best one, problem by problem."""
    for cell in chosen:
        if cell.direction == DIRECTIONS[0]:
            pair = {d: cell._replace(direction=d) for d in DIRECTIONS}
            yield _row(cell.lengthscale, pair, chosen, results)
    for cell in dict.fromkeys(cell._replace(lengthscale="") for cell in chosen):
        if cell.direction == DIRECTIONS[0]:
            pair = {d: best_lengthscale(results, cell._replace(direction=d)) for d in DIRECTIONS}
            yield _row("best", pair, chosen, results)


def _row(
    lengthscale: str,
    pair: Mapping[Direction, Cell],
    chosen: Mapping[Cell, Choice],
    results: Mapping[Cell, list[Result]],
) -> dict[str, Any]:
    """Metrics of both directions over seeds, and which is better."""
    cell = next(iter(pair.values()))
    row: dict[str, Any] = {
        "lengthscale": lengthscale,
        "target": cell.target,
        "space": cell.space,
        "geometry": cell.geometry,
        "settings": {d: (c.lengthscale, chosen[c].settings["step_size"]) for d, c in pair.items()},
    }
    found = {d: results[c] for d, c in pair.items()}
    minutes = {d: mean_cost(results[c]).minutes for d, c in pair.items()}
    return (
        row
        | {"minutes": minutes}
        | {name: compare(found, name) for name in METRICS if name in results[cell][0].metrics}
    )


def make_report(rows: Sequence[dict[str, Any]], budget: Budget, cost: Cost, figures: Path) -> StudyReport:
    """The table: mean ± standard deviation over seeds, the floor, and the better direction; and figures."""
    steps = budget.tuning_settings.get("steps", budget.steps)
    about = (
        f"Mean ± standard deviation over {budget.seeds} seeds; {budget.steps:,} steps of "
        f"{budget.batch_size:,}; Laplace kernel, lengthscales in units of the median distance between data. "
        "A direction is better if its mean is, by more than two standard errors of the difference. "
        "Lengthscale best: each direction at the one of its own that did best on validation over the seeds. "
        f"Step sizes are chosen on validation after {steps:,} steps. {cost}"
    )
    columns = ("lengthscale", "target", "geometry", *DIRECTIONS, "floor", "better")
    tables = [
        page.Table(columns, [_shown(row, name) for row in rows if name in row], title)
        for name, title in METRICS.items()
    ]
    return StudyReport("Table 1: direction and geometry", [about], tables, every_figure(figures))


def _shown(row: dict[str, Any], name: str) -> tuple[page.Value, ...]:
    problem = f"{row['target']} on the {row['space']}"
    return (row["lengthscale"], problem, row["geometry"], *compared(row[name], 4))


def draw_figures(budget: Budget, cells: Iterable[Cell], out: Path) -> None:
    """Draw, for each lengthscale, final samples, their evolution and the field; and a particle flow."""
    problems = [list(group) for _, group in groupby(cells, key=lambda cell: cell[:2])]
    for lengthscale in budget.lengthscales:
        same = [[cell for cell in problem if cell.lengthscale == lengthscale] for problem in problems]
        rows = [draw_problem(variants, out) for variants in same]
        grid_figure(rows, out / "figures" / f"{folder_of('samples', lengthscale)}.png")
    flows = [flow_row(budget.config(problem[-1], 1.0, 0).replace(lengthscale="0.1")) for problem in problems]
    grid_figure(flows, out / "figures" / "flow.png")


def draw_problem(cells: Iterable[Cell], out: Path) -> Row:
    """Draw the evolution of the variants of a problem at a lengthscale, and both directions of its field.

    Returns final samples of the variants beside data, a row of a figure.
    """
    runs = {cell: load_run(DOMAIN, out / cell.folder / "seed-0") for cell in cells}
    last, run = next(reversed(runs.items()))
    name, figures = folder_of(*last[:2], last.lengthscale), out / "figures"
    data = run.data.sample(DOMAIN.num_samples, generator_for(0))
    grid_figure([evolution(run) for run in runs.values()], figures / f"evolution-{name}.png")
    field_figure(run.data, *fields_on_lattice(run.config), data, figures / f"field-{name}.png")
    panels = {DATA: data}
    for cell, run in runs.items():
        points = DOMAIN.sample(run, DOMAIN.num_samples, seed=0).points
        panels[f"{cell.geometry} {cell.direction}"] = points
    return Row(run.data.title, run.data, panels)


def flow_row(config: SyntheticConfig) -> Row:
    """Row of a figure: samples of an untrained network that follow the kernel gradient as particles."""
    problem, seed = DOMAIN.load(config), config.run.seed
    flow = particle_flow(
        DOMAIN.field(config, problem),
        untrained(DOMAIN, config, problem).sample(500, generator_for(seed)),
        problem.sample(1_000, generator_for(seed, 1)),
        steps=FLOW_STEPS[-1],
        step_size=0.005,
        record=FLOW_STEPS,
    )
    return Row(problem.title, problem, {f"step {step}": x for step, x in flow.records.items()})
