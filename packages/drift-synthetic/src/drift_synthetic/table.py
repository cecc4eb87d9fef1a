"""Points as CSV: ambient coordinates, then those of the chart."""

from pathlib import Path

import numpy as np
import torch
from drift_core.files import atomic_path
from jaxtyping import Float, Float64
from torch import Tensor

from drift_synthetic.chart import Space


def write_csv(path: str | Path, space: Space, points: Float[Tensor, "n d"]) -> None:
    """Write points with a header: x,y | x,y,z | t,x,y, then the chart's u1,u2; float64 keeps all digits."""
    rows = torch.cat([points.double(), space.chart(points.double())], dim=1).numpy()
    with atomic_path(Path(path)) as part:
        header = ",".join((*space.columns, "u1", "u2"))
        np.savetxt(part, rows, fmt="%.9g", delimiter=",", header=header, comments="")


def read_csv(path: str | Path, space: Space) -> Float64[Tensor, "n d"]:
    """Points of a file that `write_csv` wrote.

    Raises:
        ValueError: the header is that of another space, or a row is not numeric.
    """
    expected = ",".join((*space.columns, "u1", "u2"))
    with Path(path).open() as file:
        header = file.readline().strip()
        if header != expected:
            raise ValueError(f"{path}, line 1: expected the header {expected}, found {header:.80}")
        rows = np.loadtxt(file, delimiter=",", ndmin=2)
    return torch.from_numpy(rows[:, : len(space.columns)])
