"""Score a trained generator again: evaluate.py RUN --draws 100."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import _cli
import tyro
from drift_core.runs.metrics import metrics_table, write_metrics


@dataclass(kw_only=True)
class Config:
    """Score the generator of a finished run, and rewrite its metrics.json."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of the run."""
    draws: int = 20
    """Generated draws over which metrics are averaged."""
    on: Literal["test", "val"] = "test"
    """Split to score on; val, for choosing settings, is printed and leaves metrics.json alone."""


def main(config: Config) -> None:
    """Load, score, write."""
    if config.draws < 1:
        raise ValueError(f"--draws must be at least 1, got {config.draws}")
    experiment, settings = _cli.experiment_of(config.run)
    generator = experiment.load_generator(config.run)
    metrics = experiment.score(settings, generator, draws=config.draws, on=config.on)
    if config.on == "test":
        write_metrics(config.run, metrics)
    print(metrics_table(metrics))


def parse() -> Config:
    """Settings from the command line."""
    return tyro.cli(Config)


if __name__ == "__main__":
    _cli.run(main, parse)
