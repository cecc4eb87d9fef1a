"""Reproduce a table or figure of the paper: reproduce.py table1 --budget quick."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import tyro
from drift_core import cli
from drift_core.training.config import check_range
from drift_synthetic import figure4, table1
from drift_synthetic.domain import SyntheticNetworkConfig
from drift_synthetic.model import MAX_CODEBOOK_SIZE

EXAMPLES = {
    "table1": "on two cores, six minutes",
    "figure4 --budget full --workers 8": "the paper's scale",
    "all --codebook-size 0": "with generators as published",
}


@dataclass(kw_only=True)
class Command:
    """Train all variants of a table or figure with several seeds, and write tables and figures.

    Started again after an interruption, it continues where it stopped.
    """

    what: tyro.conf.Positional[Literal["table1", "figure4", "all"]]
    """table1: direction and geometry on synthetic targets; figure4: kernels from Laplace to Gaussian."""
    budget: Literal["quick", "full"] = "quick"
    """quick: about six minutes each on two cores; full: the paper's scale, a day."""
    out: Path = Path("runs/reproduce")
    """Folder in which <what>-<budget> holds the runs, the tables and the figures."""
    codebook_size: int = SyntheticNetworkConfig.codebook_size
    """Codebook entries of every generator; 0, as published: Gaussian latents through a plain MLP. A
    non-default size has the folder <what>-<budget>-codebook-<size>."""
    workers: int = os.cpu_count() or 1
    """Runs trained in parallel, each on one core."""

    def check(self) -> None:
        """Raise ValueError for a number that is out of range."""
        check_range("workers", self.workers, 1)
        check_range("codebook_size", self.codebook_size, 0, MAX_CODEBOOK_SIZE)

    def folder(self, what: str) -> Path:
        """Folder of a study; a non-default codebook size has its own."""
        other = self.codebook_size != SyntheticNetworkConfig.codebook_size
        return self.out / f"{what}-{self.budget}{f'-codebook-{self.codebook_size}' * other}"


def reproduce(command: Command) -> None:
    """Run the requested studies, and print their tables."""
    command.check()
    for what in ("table1", "figure4") if command.what == "all" else (command.what,):
        out = command.folder(what)
        budgets = table1.BUDGETS if what == "table1" else figure4.BUDGETS
        budget = replace(budgets[command.budget], codebook_size=command.codebook_size)
        if what == "table1":
            table1.run_table1(budget, out, command.workers)
        else:
            figure4.run_figure4(budget, figure4.NUS[command.budget], out, command.workers)
        print((out / f"{what}.md").read_text())
        print(f"runs, tables and figures: {out}")


if __name__ == "__main__":
    cli.run(lambda: reproduce(cli.parse(Command, cli.with_examples(Command.__doc__, EXAMPLES))))
