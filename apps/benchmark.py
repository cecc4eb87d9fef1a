"""Time the field against the obvious ways to compute it: benchmark.py score | memory | simplex | strings."""

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro
from benchmarks import coverage, simplex, sphere
from benchmarks.timing import processor
from drift_core import cli


@dataclass(kw_only=True)
class Config:
    """Benchmarks of the drift field on S^2, float32; each line is a ratio to a named baseline."""

    name: Annotated[Literal["score", "memory", "simplex", "strings"], tyro.conf.Positional] = "score"
    """score: time against autograd and a broadcast logmap; memory: peak beside the number of references;
    simplex: one-hot and soft sequences against broadcasting (takes minutes);
    strings: train a network on random strings with and without balanced attraction (takes minutes)."""
    n: int = 4096
    """Queries, and for score also references."""
    repeats: int = 5
    """Runs of each candidate, interleaved; the fastest counts."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where to run."""


def main() -> None:
    """Run the named benchmark."""
    config = cli.parse(Config)
    print(processor(config.device))
    match config.name:
        case "score":
            sphere.score(config.n, config.repeats, config.device)
        case "memory":
            sphere.memory()
        case "simplex":
            simplex.benchmark(config.repeats)
        case "strings":
            coverage.benchmark()


if __name__ == "__main__":
    cli.run(main)
