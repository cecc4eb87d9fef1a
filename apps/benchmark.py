"""Time the drift field against naive implementations: benchmark.py score | memory | simplex | strings."""

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro
from benchmarks import coverage, simplex, sphere
from benchmarks.timing import processor
from drift_core import cli


@dataclass(kw_only=True)
class Config:
    """Benchmarks of the drift field, in float32."""

    name: Annotated[Literal["score", "memory", "simplex", "strings"], tyro.conf.Positional] = "score"
    """score: time on S^2 against autograd and a broadcast logmap;
    memory: peak memory on S^2 for growing numbers of references;
    simplex: one-hot and soft sequences against broadcasting (takes minutes);
    strings: train a network on random strings with and without reweighted data (takes minutes)."""
    n: int = 4096
    """Queries and references of score."""
    repeats: int = 5
    """Runs of each candidate, interleaved; the fastest counts."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Device of score; the others run on the CPU."""


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
