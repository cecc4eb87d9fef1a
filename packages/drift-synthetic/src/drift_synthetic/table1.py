"""Table 1 of the paper: direction and geometry, crossed, on two targets and two manifolds."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import torch
from drift_core.files import atomic_path, write_json
from drift_core.flow import particle_flow
from drift_core.runs.metrics import Metrics
from drift_core.seeds import generator_for

from drift_synthetic import experiment
from drift_synthetic.experiment import Config
from drift_synthetic.figures import DATA, Row, field_figure, grid_figure
from drift_synthetic.study import (
    LONGEST_STEP,
    TUNING_SEED,
    Budget,
    Choice,
    Direction,
    Estimate,
    Trial,
    choose,
    estimate,
    folder_of,
    run_trials,
    winner,
)

Target = Literal["checkerboard", "swiss-roll"]
Manifold = Literal["sphere", "hyperboloid"]
Geometry = Literal["euclidean", "intrinsic"]

METRICS = {
    "sliced_wasserstein": "Sliced Wasserstein-2 (lower is better)",
    "tile_accuracy": "Tile accuracy (higher is better)",
}
"""Metrics of the table; settings are chosen by the first."""

FLOW_STEPS = (0, 20, 100, 300)
"""Steps at which the particle flow is drawn; it has one lengthscale and a step that suits it."""

BUDGETS = {
    "quick": Budget(400, 512, 3, 3, ("0.2", "0.6")),
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
    def problem(self) -> str:
        """What is learned."""
        return f"{self.target} on the {self.space}"

    @property
    def variant(self) -> str:
        """How it is learned."""
        return f"{self.geometry} {self.direction}"

    @property
    def folder(self) -> str:
        """Folder of its runs."""
        return folder_of(*self)

    def config(self, budget: Budget, step_size: float, seed: int) -> Config:
        """Settings of a run, which differ between cells in what the table is about only."""
        unit = median_distance(self.target, self.space, self.geometry)
        return Config(
            target=self.target,
            space=self.space,
            geometry=self.geometry,
            direction=self.direction,
            kernel="laplace",
            lengthscale=":".join(f"{float(end) * unit:.4g}" for end in self.lengthscale.split(":")),
            step_size=step_size,
            max_step=LONGEST_STEP,
            steps=budget.steps,
            batch_size=budget.batch_size,
            seed=seed,
            eval_draws=budget.eval_draws,
            codes=budget.codes,
        )


@lru_cache
def median_distance(target: Target, space: Manifold, geometry: Geometry) -> float:
    """Median distance between points of a target, straight in ambient coordinates or on the manifold.

    A lengthscale is long or short beside it, in whatever geometry.
    """
    config = Config(target=target, space=space, geometry=geometry)
    points = experiment.problem_of(config).sample(1_000, generator_for(TUNING_SEED))
    r = experiment.make_field(config).manifold.cdist(points, points)
    return float(r[~torch.eye(len(r), dtype=torch.bool)].median())


def cells_of(budget: Budget) -> list[Cell]:
    """The whole design."""
    axes = (get_args(Target), get_args(Manifold), get_args(Geometry), get_args(Direction))
    return [Cell(*labels) for labels in product(*axes, budget.lengthscales)]


def run_table1(budget: Budget, out: Path, workers: int) -> list[dict[str, Any]]:
    """Tune, train, score and draw the whole design, and write table1.json, table1.md and figures under `out`.

    Directions are compared at the same lengthscales, since the kernel is what they share; each takes the
    step size with the better sliced Wasserstein distance on the validation stream, with a seed of its own,
    since it is what they do not. It is trained with all other seeds and scored on the test stream.
    Interrupted, it continues run by run. Raises as `run_trials` does.
    """
    chosen = choose_step_sizes(budget, out, workers)
    trials = {
        cell: [
            Trial(
                f"{cell.folder}/seed-{seed}",
                cell.config(budget, choice.setting, seed),
                metrics=tuple(METRICS),
            )
            for seed in range(budget.seeds)
        ]
        for cell, choice in chosen.items()
    }
    metrics = run_trials([t for group in trials.values() for t in group], out, workers, "table 1")
    results = {cell: [metrics[trial.name] for trial in group] for cell, group in trials.items()}
    rows = list(_rows(chosen, results))
    write_json(out / "table1.json", {"budget": asdict(budget), "rows": rows})
    with atomic_path(out / "table1.md") as part:
        part.write_text(markdown(rows, budget))
    draw_figures(budget, chosen, out)
    return rows


def choose_step_sizes(budget: Budget, out: Path, workers: int) -> dict[Cell, Choice[float]]:
    """Step size of each cell, the best on the validation stream."""
    candidates = {
        (cell, step_size): Trial(
            f"{cell.folder}/tuning-step-{step_size:g}",
            cell.config(budget, step_size, TUNING_SEED),
            "val",
            ("sliced_wasserstein",),
        )
        for cell in cells_of(budget)
        for step_size in budget.step_sizes
    }
    return choose(candidates, "sliced_wasserstein", out, workers)


def best_lengthscale(chosen: Mapping[Cell, Choice[float]], cell: Cell) -> Cell:
    """The cell with the lengthscale that did best on validation, all else equal."""
    others = [other for other in chosen if other._replace(lengthscale=cell.lengthscale) == cell]
    return min(others, key=lambda other: chosen[other].value)


def _rows(
    chosen: Mapping[Cell, Choice[float]], results: Mapping[Cell, list[Metrics]]
) -> Iterator[dict[str, Any]]:
    """Both directions at each lengthscale, and each at its best one, problem by problem."""
    for cell in chosen:
        if cell.direction == get_args(Direction)[0]:
            pair = {d: cell._replace(direction=d) for d in get_args(Direction)}
            yield _row(cell.lengthscale, pair, chosen, results)
    for cell in dict.fromkeys(cell._replace(lengthscale="") for cell in chosen):
        if cell.direction == get_args(Direction)[0]:
            pair = {d: best_lengthscale(chosen, cell._replace(direction=d)) for d in get_args(Direction)}
            yield _row("best", pair, chosen, results)


def _row(
    lengthscale: str,
    pair: Mapping[Direction, Cell],
    chosen: Mapping[Cell, Choice[float]],
    results: Mapping[Cell, list[Metrics]],
) -> dict[str, Any]:
    """Metrics of both directions over seeds, and which is better."""
    cell = next(iter(pair.values()))
    row: dict[str, Any] = {
        "lengthscale": lengthscale,
        "target": cell.target,
        "space": cell.space,
        "geometry": cell.geometry,
        "settings": {d: (c.lengthscale, chosen[c].setting) for d, c in pair.items()},
    }
    for name in results[cell][0]:
        found: dict[Direction, Estimate] = {d: estimate(results[c], name) for d, c in pair.items()}
        row[name] = {**{d: asdict(e) for d, e in found.items()}, "better": winner(name, found)}
    return row


def markdown(rows: Iterable[dict[str, Any]], budget: Budget) -> str:
    """The table as Markdown: mean ± standard deviation over seeds, the floor, and the better direction."""
    lines = [
        f"Mean ± standard deviation over {budget.seeds} seeds; {budget.steps:,} steps of "
        f"{budget.batch_size:,}; Laplace kernel, lengthscales in units of the median distance between data. "
        "A direction is better if its mean is, by more than two standard errors of the difference. "
        "Lengthscale best: each direction at the one of its own that did best on validation.",
        "",
    ]
    for name, title in METRICS.items():
        lines += [
            f"**{title}**",
            "",
            "| lengthscale | | geometry | displacement | gradient | floor | better |",
            "|---|---|---|---|---|---|---|",
        ]
        for row in rows:
            if name in row:
                x, y = (row[name][direction] for direction in get_args(Direction))
                lines.append(
                    f"| {row['lengthscale']} | {row['target']} on the {row['space']} | {row['geometry']} "
                    f"| {x['mean']:.4f} ± {x['sd']:.4f} | {y['mean']:.4f} ± {y['sd']:.4f} "
                    f"| {y['floor']:.4f} | {row[name]['better']} |"
                )
        lines.append("")
    return "\n".join(lines)


def draw_figures(budget: Budget, chosen: Mapping[Cell, Choice[float]], out: Path) -> None:
    """Draw, for each lengthscale, final samples, their evolution and the field; and the field's flow."""
    figures = out / "figures"
    for lengthscale in budget.lengthscales:
        rows = []
        for cells in _problems(chosen, lengthscale):
            configs = {
                cell: replace(cell.config(budget, chosen[cell].setting, 0), out=out / cell.folder / "seed-0")
                for cell in cells
            }
            name = folder_of(*cells[0][:2], lengthscale)
            rows.append(draw_problem(configs, figures, name))
        grid_figure(rows, figures / f"{folder_of('samples', lengthscale)}.png")
    flows = [
        flow_row(cells[-1].config(budget, 1.0, 0)) for cells in _problems(chosen, budget.lengthscales[0])
    ]
    grid_figure(flows, figures / "flow.png")


def draw_problem(configs: Mapping[Cell, Config], figures: Path, name: str) -> Row:
    """Draw the evolution of the variants of a problem and both directions of its field.

    Returns final samples of the variants beside data, a row of a figure.
    """
    runs = {cell: config.out for cell, config in configs.items() if config.out is not None}
    last = next(reversed(runs))
    problem = experiment.problem_of(configs[last])
    data = problem.sample(experiment.SAMPLES, generator_for(0))
    evolution = [experiment.evolution(run, configs[cell]) for cell, run in runs.items()]
    grid_figure(evolution, figures / f"evolution-{name}.png")
    fields = experiment.fields_on_lattice(configs[last])
    field_figure(problem, *fields, data, figures / f"field-{name}.png")
    panels = {DATA: data}
    for cell, run in runs.items():
        generator = experiment.load_generator(run)
        panels[cell.variant] = experiment.draw(generator, experiment.SAMPLES, seed=0).points
    return Row(last.problem, problem, panels)


def _problems(chosen: Iterable[Cell], lengthscale: str) -> list[list[Cell]]:
    """The variants of each problem at a lengthscale."""
    cells = [cell for cell in chosen if cell.lengthscale == lengthscale]
    problems = dict.fromkeys(cell[:2] for cell in cells)
    return [[cell for cell in cells if cell[:2] == problem] for problem in problems]


def flow_row(config: Config) -> Row:
    """Row of a figure: an untrained network's samples that follow the kernel gradient by themselves."""
    problem = experiment.problem_of(config)
    start = experiment.make_generator(config).sample(500, generator_for(config.seed))
    flow = particle_flow(
        experiment.make_field(replace(config, lengthscale="0.1")),
        start,
        problem.sample(1_000, generator_for(config.seed, 1)),
        steps=FLOW_STEPS[-1],
        step_size=0.005,
        record=FLOW_STEPS,
    )
    panels = {f"step {step}": x for step, x in flow.records.items()}
    return Row(f"{config.target} on the {config.space}", problem, panels)
