"""The evolution of a generator over training, as samples kept at a few steps."""

from dataclasses import dataclass
from pathlib import Path

from drift_core import DriftTerms, Manifold
from drift_core.train import Field
from torch import Tensor

from drift_synthetic.chart import Space
from drift_synthetic.table import read_csv, write_csv

FOLDER = "snapshots"
"""Folder of a run that holds its snapshots."""


@dataclass(frozen=True)
class Snapshots:
    """A drift field that writes down the samples that it is asked about at a few steps of training.

    It is the field it wraps in every other respect. A training step evaluates its field once, on the whole
    batch of samples, so that nothing else of training needs to know; a resumed run writes the same files.
    """

    field: Field
    space: Space
    run: Path
    """Folder of the run."""
    steps: int
    """Steps of the training."""

    @property
    def manifold(self) -> Manifold:
        """Geometry of the field."""
        return self.field.manifold

    def terms(
        self, x: Tensor, data: Tensor, model: Tensor, self_index: Tensor, progress: float
    ) -> DriftTerms:
        """Terms of the field; the pool `model` is written down if this is one of the `snapshot_steps`."""
        step = round(progress * self.steps)
        if step in snapshot_steps(self.steps):
            samples = self.space.manifold.projx(model.cpu())
            write_csv(self.run / FOLDER / f"step_{step:09d}.csv", self.space, samples)
        return self.field.terms(x, data, model, self_index, progress)

    def effective_samples(self, x: Tensor, data: Tensor, progress: float) -> float:
        """Effective number of data points of the field."""
        return self.field.effective_samples(x, data, progress)


def snapshot_steps(steps: int) -> list[int]:
    """Steps at which samples are kept: 0 and a sixteenth, an eighth, a quarter and half of training."""
    return sorted({0, *(steps // part for part in (16, 8, 4, 2))})


def read_snapshots(run: Path, space: Space) -> dict[int, Tensor]:
    """Samples [n, d] of a run by the number of steps after which they were drawn, in order."""
    files = sorted((run / FOLDER).glob("step_*.csv"))
    return {int(file.stem.removeprefix("step_")): read_csv(file, space) for file in files}
