"""Draw from a trained generator: sample.py RUN --n 10000 --seed 0 --out samples.csv."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import _cli
import tyro


@dataclass(kw_only=True)
class Config:
    """Draw samples from the generator of a finished run."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of the run."""
    out: Path
    """File to write; its format is the domain's (sphere: CSV of latitude and longitude in degrees)."""
    n: int = 1_000
    """Number of samples."""
    seed: int = 0
    """Seed; the same seed draws the same samples."""


def main(config: Config) -> None:
    """Load, draw, write."""
    if config.n < 1:
        raise ValueError(f"--n must be at least 1, got {config.n}")
    if config.out.exists():
        raise ValueError(f"--out {config.out} exists; name a new file")
    experiment, _ = _cli.experiment_of(config.run)
    samples = experiment.draw(experiment.load_generator(config.run), config.n, config.seed)
    experiment.save(config.out, samples)
    print(f"{config.n:,} samples: {config.out}")


def parse() -> Config:
    """Settings from the command line."""
    return tyro.cli(Config)


if __name__ == "__main__":
    _cli.run(main, parse)
