"""Measure the drift field beside its baselines."""

import os
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import tyro
from benchmarks import coverage, grammar, toolbox
from benchmarks.claims import claims_table
from benchmarks.comparison import compare
from benchmarks.groups import Group, cases_of
from benchmarks.measure import measure
from benchmarks.plot import draw
from benchmarks.report import Report, read_report, tables, write_report
from drift_core import cli
from drift_core.training.config import check_positive, check_range


@dataclass(kw_only=True)
class Run:
    """Measure time and memory of scores, their baselines and the machine's ceilings, in float32.

    Writes a JSON file and, beside it, a plot (PNG); prints tables. All groups take about ten minutes.
    """

    only: tuple[Group, ...] = get_args(Group)
    """Groups of cases. S2, R2, R64, H2: growing n = m; references: growing m; dimensions: growing d;
    kernels; eigenfunctions, of rotations, growing n = m; nearest; couplings, with the original field;
    classes, 10 and 100 a step; tokens and soft: sequences of growing L and K; kmers."""
    out: Path | None = None
    """JSON file to write; none: runs/benchmark/<time>.json."""
    repeats: int = 5
    """Runs of each candidate after a first, interleaved; their median counts."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Device of the scores."""

    def __call__(self) -> None:
        """Run the benchmarks."""
        check_range("repeats", self.repeats, 1)
        out = self.out or Path("runs/benchmark") / time.strftime("%Y%m%d-%H%M%S.json")
        if out.suffix != ".json" or out.exists():
            problem = "exists" if out.exists() else "does not end in .json"
            raise ValueError(f"`out` {out} {problem}; name a new .json file")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("`device` cuda needs an NVIDIA GPU, and torch finds none")
        cases = [case for group in self.only for case in cases_of(group, self.device)]
        report = measure(cases, self.repeats, self.device)
        write_report(out, report)
        present(report, out)


@dataclass(kw_only=True)
class Show:
    """Print the tables of a report, and draw its plot again."""

    file: tyro.conf.Positional[Path]
    """JSON file of a run."""

    def __call__(self) -> None:
        """Read the report and present it."""
        present(read_report(self.file), self.file)


@dataclass(kw_only=True)
class Compare:
    """Compare the times of two reports; the exit status is 1 if a case became slower."""

    old: tyro.conf.Positional[Path]
    """JSON file of the earlier run."""
    new: tyro.conf.Positional[Path]
    """JSON file of the later run."""
    tolerance: float = 1.2
    """Factor by which a case may be slower."""

    def __call__(self) -> None:
        """Print the table, and exit with status 1 if a case is slower."""
        check_positive("tolerance", self.tolerance)
        table, slower = compare(self.old, self.new, self.tolerance)
        print(table)
        if slower:
            sys.exit(1)


@dataclass(kw_only=True)
class Strings:
    """Train a network on random strings, with and without reweighted data (takes minutes)."""

    def __call__(self) -> None:
        """Train every case."""
        coverage.benchmark()


@dataclass(kw_only=True)
class Grammar:
    """Train a network on half of a small language, and count the strings of the other half that it finds."""

    seeds: int = 3
    """Halves and networks; each takes three CPU minutes."""

    def __call__(self) -> None:
        """Train, and print the counts."""
        check_range("seeds", self.seeds, 1)
        grammar.benchmark(self.seeds)


@dataclass(kw_only=True)
class Toolbox:
    """Train generators with each coupling and scale on three kinds of data, three seeds each.

    Writes a table and its figure; prints the table. Started again after an interruption, it continues where
    it stopped. Takes about ten CPU minutes.
    """

    out: Path = Path("runs/toolbox")
    """Folder of the runs and the table."""
    workers: int = os.cpu_count() or 1
    """Runs trained in parallel, each on one core."""

    def __call__(self) -> None:
        """Train, and print the table."""
        check_range("workers", self.workers, 1)
        print(toolbox.benchmark(self.out, self.workers).markdown)


EXAMPLES = {
    "run --only S2 --repeats 3 --out new.json": "scores on the sphere beside their baselines",
    "compare old.json new.json": "what became slower",
    "COMMAND --help": "the options of a command",
}

Command: Any = Run | Show | Compare | Strings | Grammar | Toolbox


def present(report: Report, path: Path) -> None:
    """Print the tables of a report, and draw its plot beside the file."""
    plot = path.with_suffix(".png")
    draw(report, plot)
    print(tables(report), claims_table(report), f"report: {path}\nplot: {plot}", sep="\n\n")


if __name__ == "__main__":
    command = partial(cli.parse, Command, cli.with_examples(__doc__, EXAMPLES))
    cli.run(lambda: command()(), stopped="stopped; a toolbox table goes on by the same command")
