"""Figure 4 of the paper: displacement against kernel gradient as the kernel goes from Laplace to Gaussian."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple, get_args

from drift_core.runs import atomic_path, write_json
from matplotlib.axes import Axes

from drift_synthetic.experiment import Config
from drift_synthetic.figures import DATA_COLOUR, MODEL_COLOUR, written_figure
from drift_synthetic.study import (
    LONGEST_STEP,
    STEP_SIZES,
    TUNING_SEED,
    Budget,
    Direction,
    Settings,
    Trial,
    choose,
    estimate,
    run_trials,
    tuning_name,
    winner,
)

DIRECTIONS: tuple[Direction, ...] = get_args(Direction)


NUS = {"quick": (0.5, 1.5, 2.5, 10.0, math.inf), "full": (0.5, 1.5, 2.5, 3.5, 10.0, 50.0, math.inf)}
"""Smoothness of the Matern kernels by budget, from 1/2 (Laplace) to infinity (Gaussian)."""

BUDGETS = {
    "quick": Budget(600, 512, 3, 3, tuple(product(("1:0.03", "0.1"), STEP_SIZES))),
    "full": Budget(6_000, 1_024, 5, 3, tuple(product(("1:0.02", "1:0.05", "1:0.1", "0.1"), STEP_SIZES))),
}
"""Budgets by name: minutes on two cores, and hours."""


class Point(NamedTuple):
    """A point of the figure."""

    nu: float
    direction: Direction

    def config(self, budget: Budget, settings: Settings, seed: int) -> Config:
        """Settings of a run: the swiss roll in the plane."""
        return Config(
            target="swiss-roll",
            space="plane",
            direction=self.direction,
            kernel="matern",
            nu=self.nu,
            lengthscale=settings[0],
            step_size=settings[1],
            max_step=LONGEST_STEP,
            steps=budget.steps,
            batch_size=budget.batch_size,
            seed=seed,
            eval_draws=budget.eval_draws,
        )

    @property
    def folder(self) -> str:
        """Folder of its runs."""
        return f"nu-{self.nu:g}-{self.direction}"


def run_figure4(budget: Budget, nus: Sequence[float], out: Path, workers: int) -> list[dict[str, Any]]:
    """Tune, train and score both directions at every nu, and write figure4.json, .md and .png under `out`.

    Settings are chosen by C2ST on the validation stream, all else is as in table 1.
    """
    points = [Point(*labels) for labels in product(nus, DIRECTIONS)]
    candidates = {
        (point, settings): Trial(
            tuning_name(point.folder, settings),
            point.config(budget, settings, TUNING_SEED),
            "val",
            ("c2st",),
        )
        for point in points
        for settings in budget.candidates
    }
    chosen = choose(candidates, "c2st", out, workers)
    trials = {
        point: [
            Trial(f"{point.folder}/seed-{seed}", point.config(budget, chosen[point], seed))
            for seed in range(budget.seeds)
        ]
        for point in points
    }
    metrics = run_trials([t for group in trials.values() for t in group], out, workers, "figure 4")
    rows = []
    for nu in nus:
        row: dict[str, Any] = {"nu": nu if math.isfinite(nu) else "inf"}
        for name in ("c2st", "sliced_wasserstein"):
            pair = {d: estimate([metrics[t.name] for t in trials[Point(nu, d)]], name) for d in DIRECTIONS}
            row[name] = {**{d: asdict(e) for d, e in pair.items()}, "better": winner(name, pair)}
        rows.append(row | {"settings": {d: chosen[Point(nu, d)] for d in DIRECTIONS}})
    write_json(out / "figure4.json", {"budget": asdict(budget), "points": rows})
    with atomic_path(out / "figure4.md") as part:
        part.write_text(markdown(rows, budget))
    draw(rows, out / "figures" / "figure4.png")
    return rows


def markdown(rows: Sequence[dict[str, Any]], budget: Budget) -> str:
    """The figure as a Markdown table."""
    lines = [
        "C2ST accuracy (0.5 is best), swiss roll in the plane, Matern kernels: mean ± standard deviation "
        f"over {budget.seeds} seeds; {budget.steps:,} steps of {budget.batch_size:,}.",
        "",
        "| nu | displacement | gradient | floor | better |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        x, y = row["c2st"]["displacement"], row["c2st"]["gradient"]
        lines.append(
            f"| {row['nu']} | {x['mean']:.3f} ± {x['sd']:.3f} | {y['mean']:.3f} ± {y['sd']:.3f} "
            f"| {y['floor']:.3f} | {row['c2st']['better']} |"
        )
    return "\n".join([*lines, ""])


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw C2ST accuracy against nu for both directions, with standard errors, over the floor."""
    with written_figure(path, 5.0, 3.4) as figure:
        axes: Axes = figure.subplots()
        places = range(len(rows))
        for direction, colour, marker in zip(DIRECTIONS, (DATA_COLOUR, MODEL_COLOUR), "so", strict=True):
            found = [row["c2st"][direction] for row in rows]
            errors = [e["sd"] / math.sqrt(e["n"]) for e in found]
            axes.errorbar(
                places,
                [e["mean"] for e in found],
                errors,
                color=colour,
                marker=marker,
                capsize=3,
                label=direction,
            )
        floor = [row["c2st"]["gradient"]["floor"] for row in rows]
        axes.plot(places, floor, color="#888888", linestyle="--", label="floor")
        axes.set_xticks(places, ["Gaussian" if row["nu"] == "inf" else f"{row['nu']:g}" for row in rows])
        axes.set(xlabel="nu", ylabel="C2ST accuracy")
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
