"""Reproduce a table or figure of the paper: reproduce.py table1 --budget quick."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import _cli
import tyro
from drift_synthetic import experiment, figure4, table1


@dataclass(kw_only=True)
class Config:
    """Train the whole design of a table or figure over several seeds, and write tables and pictures.

    Interrupted, it continues where it stopped when it is started again.
    """

    what: Annotated[Literal["table1", "figure4", "all"], tyro.conf.Positional]
    """table1: direction and geometry on synthetic targets; figure4: kernels from Laplace to Gaussian."""
    budget: Literal["quick", "full"] = "quick"
    """quick: about ten minutes each on two cores; full: the paper's scale, hours."""
    out: Path = Path("runs/reproduce")
    """Folder in which <what>-<budget> holds the runs, the tables and the figures."""
    codes: int = experiment.Config.codes
    """Learned codes of every generator; 0: Gaussian noise through the network, as published. Runs with
    another number than the default have the folder <what>-<budget>-codes-<codes>."""
    workers: int = os.cpu_count() or 1
    """Runs that are trained at the same time, each on one core."""


def main(config: Config) -> None:
    """Run what was asked for, and print its table."""
    if config.workers < 1:
        raise ValueError(f"--workers must be at least 1, got {config.workers}")
    if config.codes < 0:
        raise ValueError(f"--codes must be at least 0, got {config.codes}")
    for what in ("table1", "figure4") if config.what == "all" else (config.what,):
        out = folder(config, what)
        budgets = table1.BUDGETS if what == "table1" else figure4.BUDGETS
        budget = replace(budgets[config.budget], codes=config.codes)
        if what == "table1":
            table1.run_table1(budget, out, config.workers)
        else:
            figure4.run_figure4(budget, figure4.NUS[config.budget], out, config.workers)
        print((out / f"{what}.md").read_text())
        print(f"runs, tables and figures: {out}")


def folder(config: Config, what: str) -> Path:
    """Folder of a study; another number of codes than the default's has its own."""
    suffix = "" if config.codes == experiment.Config.codes else f"-codes-{config.codes}"
    return config.out / f"{what}-{config.budget}{suffix}"


def parse() -> Config:
    """Settings from the command line."""
    return tyro.cli(Config)


if __name__ == "__main__":
    _cli.run(main, parse)
