"""The evolution of a generator over training, as samples kept at a few steps."""

from collections.abc import Callable
from pathlib import Path

from drift_core import Batch
from torch import Tensor

from drift_synthetic.space import Space
from drift_synthetic.table import read_csv, write_csv

FOLDER = "snapshots"
"""Folder of a run that holds its snapshots."""


def write_snapshots(space: Space, run: Path, steps: int) -> Callable[[Batch], None]:
    """Hook for `train` that saves the samples of a few of its steps; a resumed run writes the same files."""

    def write(batch: Batch) -> None:
        if batch.step in snapshot_steps(steps):
            samples, _ = batch.negatives()
            path = run / FOLDER / f"step_{batch.step:09d}.csv"
            write_csv(path, space, space.manifold.projx(samples.cpu()))

    return write


def snapshot_steps(steps: int) -> list[int]:
    """Steps at which samples are kept: 0 and a sixteenth, an eighth, a quarter and half of training."""
    return sorted({0, *(steps // part for part in (16, 8, 4, 2))})


def read_snapshots(run: Path, space: Space) -> dict[int, Tensor]:
    """Samples [n, d] of a run by the number of steps after which they were drawn, in order."""
    files = sorted((run / FOLDER).glob("step_*.csv"))
    return {int(file.stem.removeprefix("step_")): read_csv(file, space) for file in files}
