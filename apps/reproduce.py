"""Reproduce a table or figure of the paper: reproduce.py table1 --budget quick."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import torch
import tyro
from drift_core import cli
from drift_core.runs.study import Table, check_data, run_table
from drift_core.training.config import check_range
from drift_promoter.table3 import table3
from drift_qm9.table4 import table4
from drift_sphere.table2 import table2
from drift_synthetic import figure4, table1
from drift_synthetic.domain import SyntheticNetworkConfig
from drift_synthetic.model import MAX_CODEBOOK_SIZE

What = Literal["table1", "table2", "table3", "table4", "figure4"]
Budget = Literal["quick", "full"]

TABLES: dict[What, Callable[[Budget, Path | None], Table]] = {
    "table2": table2,
    "table3": table3,
    "table4": table4,
}
"""Tables of real data."""

EXAMPLES = {
    "all": "everything, within an hour on two cores",
    "table1": "on two cores, ten minutes",
    "table2 --budget full": "the paper's scale",
    "figure4 --codebook-size 0": "with generators as published",
}


@dataclass(kw_only=True)
class Command:
    """Train all variants of a table or figure with several seeds, and write tables and figures.

    Started again after an interruption, it continues where it stopped.
    """

    what: tyro.conf.Positional[Literal[What, "all"]]
    """table1: direction and geometry on synthetic targets; table2: events on the Earth; table3: promoters;
    table4: molecules; figure4: kernels from Laplace to Gaussian; all: every one whose data are found."""
    budget: Budget = "quick"
    """quick: all within an hour on two cores, tables 3 and 4 as smoke tests; full: the paper's scale, a day
    on two cores for table1 and figure4, the others on a GPU."""
    out: Path = Path("runs/reproduce")
    """Folder in which <what>-<budget> holds the runs, the tables and the figures."""
    codebook_size: int = SyntheticNetworkConfig.codebook_size
    """Of table1 and figure4: codebook entries of every generator; 0, as published: Gaussian latents through a
    plain MLP. A non-default size has the folder <what>-<budget>-codebook-<size>."""
    data_dir: Path | None = None
    """Folder of the data of tables 2 to 4; none: $DRIFT_DATA_DIR, else a download."""
    workers: int = torch.cuda.device_count() or os.cpu_count() or 1
    """Runs trained in parallel, each on one core or one GPU."""

    def check(self) -> None:
        """Raise ValueError for a number that is out of range or has no effect."""
        check_range("workers", self.workers, 1)
        check_range("codebook_size", self.codebook_size, 0, MAX_CODEBOOK_SIZE)
        if self.what in TABLES and self._other_codebook:
            raise ValueError(f"`codebook_size` is for table1 and figure4, not for {self.what}")

    def folder(self, what: What) -> Path:
        """Folder of a study; a non-default codebook size has its own."""
        other = self._other_codebook and what not in TABLES
        return self.out / f"{what}-{self.budget}{f'-codebook-{self.codebook_size}' * other}"

    @property
    def _other_codebook(self) -> bool:
        return self.codebook_size != SyntheticNetworkConfig.codebook_size


def reproduce(command: Command) -> None:
    """Run the requested studies, and print their tables.

    Of `all`, tables without data are skipped, with the reason; otherwise missing data are an error. Either is
    said before anything is trained.
    """
    command.check()
    everything = command.what == "all"
    due: tuple[What, ...] = get_args(What) if everything else (command.what,)
    for what in available(command, due) if everything else due:
        out = command.folder(what)
        run_study(what, command, out)
        print((out / f"{what}.md").read_text())
        print(f"runs, tables and figures: {out}")


def available(command: Command, due: tuple[What, ...]) -> list[What]:
    """The studies whose data are there; the others are named with the reason."""
    found: list[What] = []
    for what in due:
        try:
            if what in TABLES:
                check_data(TABLES[what](command.budget, command.data_dir))
            found.append(what)
        except (OSError, ValueError) as error:
            print(f"skipped {what}: {cli.as_flags(str(error))}")
    return found


def run_study(what: What, command: Command, out: Path) -> None:
    """Run one study; its table is <what>.md in `out`."""
    if what in TABLES:
        run_table(TABLES[what](command.budget, command.data_dir), out, command.workers)
        return
    budgets = table1.BUDGETS if what == "table1" else figure4.BUDGETS
    budget = replace(budgets[command.budget], codebook_size=command.codebook_size)
    if what == "table1":
        table1.run_table1(budget, out, command.workers)
    else:
        figure4.run_figure4(budget, figure4.NUS[command.budget], out, command.workers)


if __name__ == "__main__":
    command = partial(cli.parse, Command, cli.with_examples(Command.__doc__, EXAMPLES))
    cli.run(lambda: reproduce(command()), stopped="stopped; the same command goes on")
