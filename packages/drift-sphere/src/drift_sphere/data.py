"""Points on the sphere for training, validation and testing."""

from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, Float32
from torch import Generator, Tensor
from torch.utils.data import TensorDataset, random_split

from drift_sphere.coordinates import check_on_sphere, latlon_to_sphere
from drift_sphere.earth import EARTH, load_earth
from drift_sphere.table import MIN_ROWS, read_csv
from drift_sphere.toy import toy

DATASETS = ("toy", *EARTH)
"""Names that `load` accepts."""

TOY_SIZE = 5_000
"""The number of points of the toy data set."""


class Points(NamedTuple):
    """Unit vectors for training, validation (selection) and testing (reports)."""

    train: Float32[Tensor, "n 3"]
    val: Float32[Tensor, "m 3"]
    test: Float32[Tensor, "m 3"]


def split(points: Float[Tensor, "n 3"], seed: int = 42) -> Points:
    """Split unit vectors into N//10 for testing, N//10 for validation and the rest for training.

    Membership and order are those of `torch.utils.data.random_split` with the sizes in the order
    train, validation, test, which is the protocol of Riemannian Flow Matching (Chen and Lipman 2024).
    Raises ValueError for fewer than 10 points or points off the sphere.
    """
    tenth = len(points) // 10
    if not tenth:
        raise ValueError(f"{len(points)} points; at least {MIN_ROWS} are needed to split 80/10/10")
    check_on_sphere(points, "points")
    sizes = [len(points) - 2 * tenth, tenth, tenth]
    parts = random_split(TensorDataset(points), sizes, generator=Generator().manual_seed(seed))
    return Points(*(points[torch.tensor(part.indices)].float() for part in parts))


def load(
    dataset: str = "toy",
    data: str | Path | None = None,
    data_dir: str | Path | None = None,
    split_seed: int = 42,
) -> Points:
    """Load and split the file `data` (CSV, degrees) if given, else the data set called `dataset`.

    `dataset` is "toy" (synthetic, always the same 5,000 points) or a name in `EARTH`, which is read
    from `data_dir` as in `load_earth`. Raises as `read_csv` and `load_earth` do.
    """
    if data is not None:
        latlon = read_csv(data)
    elif dataset == "toy":
        return split(toy(TOY_SIZE, Generator().manual_seed(0)), split_seed)
    elif dataset in EARTH:
        latlon = load_earth(dataset, data_dir)
    else:
        raise ValueError(f"no data set {dataset!r}; there are {', '.join(DATASETS)}")
    return split(latlon_to_sphere(latlon[:, 0], latlon[:, 1]), split_seed)
