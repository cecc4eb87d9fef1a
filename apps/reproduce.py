"""Reproduce a table or figure of the paper: reproduce.py table1 --budget quick."""

import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import torch
import tyro
from drift_core import cli
from drift_core.runs.study import StudyReport, Table, check_data, run_table, write_study
from drift_core.training.config import check_range
from drift_promoter.table3 import table3
from drift_qm9.table4 import table4
from drift_sphere.ablation import ablation
from drift_sphere.compute import compute
from drift_sphere.table2 import table2
from drift_synthetic import figure4, table1
from drift_synthetic.domain import SyntheticNetworkConfig
from drift_synthetic.model import MAX_CODEBOOK_SIZE

What = Literal["table1", "table2", "table3", "table4", "figure4", "compute", "ablation"]
Budget = Literal["quick", "full"]

TABLES: dict[What, Callable[[Budget, Path | None], Table]] = {
    "table2": table2,
    "table3": table3,
    "table4": table4,
    "compute": compute,
    "ablation": ablation,
}
"""Tables of real data."""

EXAMPLES = {
    "all": "everything, about an hour on two cores",
    "table1": "on two cores, five minutes",
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
    table4: molecules; figure4: kernels from Laplace to Gaussian; not in the paper, on the Earth: compute,
    one step against a flow of many, and ablation, one change of our default at a time; all: every one whose
    data are found."""
    budget: Budget = "quick"
    """quick: all in about an hour on two cores, tables 3 and 4 as smoke tests; full: the paper's scale, a day
    on two cores for table1 and figure4, the others on a GPU."""
    out: Path = Path("runs/reproduce")
    """Folder in which <what>-<budget> holds the runs, the tables and the figures."""
    codebook_size: int = SyntheticNetworkConfig.codebook_size
    """Of table1 and figure4: codebook entries of every generator; 0, as published: Gaussian latents through a
    plain MLP. A non-default size has the folder <what>-<budget>-codebook-<size>."""
    data_dir: Path | None = None
    """Folder of real data; none: $DRIFT_DATA_DIR, else a download."""
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
    """Run the requested studies, print their tables, and write them all to a page.

    Of `all`, tables without data are skipped, with the reason; otherwise missing data are an error. Either is
    said before anything is trained.
    """
    command.check()
    everything = command.what == "all"
    skipped = without_data(command) if everything else {}
    for what, reason in skipped.items():
        print(f"skipped {what}: {reason}", flush=True)
    due: tuple[What, ...] = get_args(What) if everything else (command.what,)
    reports = []
    for what in due:
        if what not in skipped:
            reports.append(run_study(what, command))
            print(f"{reports[-1].markdown}\nruns, tables and figures: {command.folder(what)}", flush=True)
    page = (command.out if everything else command.folder(due[0])) / "study.html"
    write_study(page, reports, skipped, shlex.join(["uv", "run", *sys.argv]))
    print(f"every table and figure: {page}")


def without_data(command: Command) -> dict[str, str]:
    """Why the data of tables cannot be loaded, by their names; nothing for those that can."""
    reasons: dict[str, str] = {}
    for what, make_table in TABLES.items():
        try:
            check_data(make_table(command.budget, command.data_dir))
        except (OSError, ValueError) as error:
            reasons[what] = cli.as_flags(" ".join(str(error).split()))
    return reasons


def run_study(what: What, command: Command) -> StudyReport:
    """Run one study in its folder."""
    out, workers = command.folder(what), command.workers
    if what in TABLES:
        return run_table(TABLES[what](command.budget, command.data_dir), out, workers)
    budgets = table1.BUDGETS if what == "table1" else figure4.BUDGETS
    budget = replace(budgets[command.budget], codebook_size=command.codebook_size)
    if what == "table1":
        return table1.run_table1(budget, out, workers)
    return figure4.run_figure4(budget, figure4.NUS[command.budget], out, workers)


if __name__ == "__main__":
    command = partial(cli.parse, Command, cli.with_examples(Command.__doc__, EXAMPLES))
    cli.run(lambda: reproduce(command()), stopped="stopped; the same command goes on")
