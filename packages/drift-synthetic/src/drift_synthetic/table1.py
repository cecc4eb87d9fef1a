"""Table 1 of the paper: direction and geometry, crossed, on two targets and two manifolds."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from drift_core.flow import particle_flow
from drift_core.runs import atomic_path, write_json
from drift_core.seeds import generator_for

from drift_synthetic import experiment
from drift_synthetic.experiment import Config, Metrics
from drift_synthetic.figures import DATA, Row, field_figure, grid_figure
from drift_synthetic.study import (
    LONGEST_STEP,
    STEP_SIZES,
    TUNING_SEED,
    Budget,
    Direction,
    Estimate,
    Settings,
    Trial,
    choose,
    estimate,
    run_trials,
    tuning_name,
    winner,
)

Target = Literal["checkerboard", "swiss-roll"]
Manifold = Literal["sphere", "hyperboloid"]
Geometry = Literal["euclidean", "intrinsic"]

FLOW_STEPS = (0, 20, 100, 300)
"""Steps at which the particle flow is drawn; it has one lengthscale and a step that suits it."""


BUDGETS = {
    "quick": Budget(600, 512, 3, 3, tuple(product(("1:0.03", "1:0.1"), STEP_SIZES))),
    "full": Budget(6_000, 1_024, 5, 20, tuple(product(("1:0.02", "1:0.05", "1:0.1", "0.2"), STEP_SIZES))),
}
"""Budgets by name: minutes on two cores, and hours."""


class Cell(NamedTuple):
    """A cell of the table."""

    target: Target
    space: Manifold
    geometry: Geometry
    direction: Direction

    @property
    def problem(self) -> str:
        """What is learned."""
        return f"{self.target} on the {self.space}"

    @property
    def variant(self) -> str:
        """How it is learned."""
        return f"{self.geometry} {self.direction}"

    def config(self, budget: Budget, settings: Settings, seed: int) -> Config:
        """Settings of a run, which differ between cells in what the table is about only."""
        return Config(
            target=self.target,
            space=self.space,
            geometry=self.geometry,
            direction=self.direction,
            kernel="laplace",
            lengthscale=settings[0],
            step_size=settings[1],
            max_step=LONGEST_STEP,
            steps=budget.steps,
            batch_size=budget.batch_size,
            seed=seed,
            eval_draws=budget.eval_draws,
        )


CELLS = tuple(
    Cell(*labels)
    for labels in product(get_args(Target), get_args(Manifold), get_args(Geometry), get_args(Direction))
)


def run_table1(budget: Budget, out: Path, workers: int) -> list[dict[str, Any]]:
    """Tune, train, score and draw the whole design, and write table1.json, table1.md and figures under `out`.

    Every cell chooses among the same settings by its sliced Wasserstein distance on the validation
    stream, with a seed of its own; the chosen one is trained with all other seeds and scored on the test
    stream. Interrupted, it continues run by run. Raises as `run_trials` does.
    """
    chosen = choose_settings(budget, out, workers)
    trials = {
        cell: [
            Trial(
                f"{_folder(cell)}/seed-{seed}",
                cell.config(budget, chosen[cell], seed),
                metrics=("sliced_wasserstein", "tile_accuracy"),
            )
            for seed in range(budget.seeds)
        ]
        for cell in CELLS
    }
    metrics = run_trials([t for group in trials.values() for t in group], out, workers, "table 1")
    results = {cell: [metrics[trial.name] for trial in group] for cell, group in trials.items()}
    rows = [_row(cell, chosen[cell], results) for cell in CELLS]
    write_json(out / "table1.json", {"budget": asdict(budget), "cells": rows})
    with atomic_path(out / "table1.md") as part:
        part.write_text(markdown(rows, budget))
    draw_figures(budget, chosen, out)
    return rows


def choose_settings(budget: Budget, out: Path, workers: int) -> dict[Cell, Settings]:
    """Lengthscale and step size of each cell, the best of the candidates on the validation stream."""
    candidates = {
        (cell, settings): Trial(
            tuning_name(_folder(cell), settings),
            cell.config(budget, settings, TUNING_SEED),
            "val",
            ("sliced_wasserstein",),
        )
        for cell in CELLS
        for settings in budget.candidates
    }
    return choose(candidates, "sliced_wasserstein", out, workers)


def _folder(cell: Cell) -> str:
    return "-".join(cell)


def _row(cell: Cell, settings: Settings, results: dict[Cell, list[Metrics]]) -> dict[str, Any]:
    """A cell's metrics over seeds, and which direction is better at its geometry."""
    row: dict[str, Any] = {**cell._asdict(), "lengthscale": settings[0], "step_size": settings[1]}
    for name in results[cell][0]:
        pair: dict[Direction, Estimate] = {
            direction: estimate(results[cell._replace(direction=direction)], name)
            for direction in get_args(Direction)
        }
        row[name] = {**asdict(pair[cell.direction]), "better": winner(name, pair)}
    return row


def markdown(rows: Sequence[dict[str, Any]], budget: Budget) -> str:
    """The table as Markdown: mean ± standard deviation over seeds, the floor, and the better direction."""
    lines = [
        f"Mean ± standard deviation over {budget.seeds} seeds; {budget.steps:,} steps of "
        f"{budget.batch_size:,}. A direction is better if its mean is, by more than two standard "
        "errors of the difference.",
        "",
    ]
    for name, title in (
        ("sliced_wasserstein", "Sliced Wasserstein-2 (lower is better)"),
        ("tile_accuracy", "Tile accuracy (higher is better)"),
    ):
        lines += [
            f"**{title}**",
            "",
            "| | geometry | displacement | gradient | floor | better |",
            "|---|---|---|---|---|---|",
        ]
        scored = [row for row in rows if name in row]
        for a, b in zip(scored[::2], scored[1::2], strict=True):
            x, y = a[name], b[name]
            lines.append(
                f"| {a['target']} on the {a['space']} | {a['geometry']} | {x['mean']:.4f} ± {x['sd']:.4f} "
                f"| {y['mean']:.4f} ± {y['sd']:.4f} | {y['floor']:.4f} | {y['better']} |"
            )
        lines.append("")
    return "\n".join(lines)


def draw_figures(budget: Budget, chosen: dict[Cell, Settings], out: Path) -> None:
    """Draw final samples of all variants, their evolution, both directions of the field, and the flow."""
    problems = list(dict.fromkeys(cell[:2] for cell in CELLS))
    samples, flows = [], []
    for target, space in problems:
        cells = [cell for cell in CELLS if cell[:2] == (target, space)]
        configs = {
            cell: replace(cell.config(budget, chosen[cell], 0), out=out / _folder(cell) / "seed-0")
            for cell in cells
        }
        problem = experiment.problem_of(configs[cells[0]])
        data = problem.sample(experiment.SAMPLES, generator_for(0))
        panels = {DATA: data}
        for cell in cells:
            generator = experiment.load_generator(out / _folder(cell) / "seed-0")
            panels[cell.variant] = experiment.draw(generator, experiment.SAMPLES, seed=0).points
        samples.append(Row(cells[0].problem, problem, panels))
        rows = [
            experiment.evolution(out / _folder(cell) / "seed-0", config) for cell, config in configs.items()
        ]
        grid_figure(rows, out / "figures" / f"evolution-{target}-{space}.png")
        best = configs[cells[-1]]
        field_figure(
            problem,
            *experiment.fields_on_lattice(best),
            data,
            out / "figures" / f"field-{target}-{space}.png",
        )
        flows.append(flow_row(best))
    grid_figure(samples, out / "figures" / "samples.png")
    grid_figure(flows, out / "figures" / "flow.png")


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
