"""Points on the sphere for training, validation and testing."""

from pathlib import Path
from typing import NamedTuple

import torch
from drift_core.runs.datasets import PublishedFile
from jaxtyping import Float, Float32, Float64
from torch import Generator, Tensor
from torch.utils.data import TensorDataset, random_split

from drift_sphere.coordinates import check_on_sphere, latlon_to_sphere
from drift_sphere.table import MIN_ROWS, read_csv
from drift_sphere.toy import toy

_SOURCE = (
    "https://raw.githubusercontent.com/oxcsml/riemannian-score-sde/"
    "b35b739464ca8264e418e400301f5f45cb7a16b3/data"
)


def _file(name: str, sha256: str) -> PublishedFile:
    return PublishedFile("earth", name, f"{_SOURCE}/{name}", sha256)


EARTH = {
    "volcano": _file("volerup.csv", "f7bbaf32a412f5fe82350f48e0c55100be260803969c16557343f687fd0593fc"),
    "earthquake": _file("quakes_all.csv", "3e5e1a10fb2faf1899106264289334037d039f00f5265d13dad388a93d8ff2f7"),
    "flood": _file("flood.csv", "ffb1e3182c3053afcdeceec4727c262a29da10255d20747c08144da5b0963486"),
    "fire": _file("fire.csv", "c5c6c9490b1d8c58ba9eb78d9e2f82d1c1e62694ca5cff917c54600d3d83f459"),
}
"""The files of the four data sets of Mathieu and Nickel (2020) by name."""

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


def load_earth(name: str, data_dir: str | Path | None = None) -> Float64[Tensor, "n 2"]:
    """Latitude and longitude in degrees of a data set in `EARTH`, found as `PublishedFile.path` does.

    Raises ValueError for an unknown name, and as `PublishedFile.path` does.
    """
    if name not in EARTH:
        raise ValueError(f"no Earth data set {name!r}; there are {', '.join(EARTH)}")
    return read_csv(EARTH[name].path(data_dir))
