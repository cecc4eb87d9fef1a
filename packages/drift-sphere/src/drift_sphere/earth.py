"""The four Earth event data sets of Mathieu and Nickel (2020): where they are, and reading them."""

from pathlib import Path

from drift_core.runs.datasets import PublishedFile
from jaxtyping import Float64
from torch import Tensor

from drift_sphere.table import read_csv

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
"""The files by name of the data set."""


def load_earth(name: str, data_dir: str | Path | None = None) -> Float64[Tensor, "n 2"]:
    """Latitude and longitude in degrees of a data set in `EARTH`, found as `PublishedFile.path` does.

    Raises ValueError for an unknown name, and as `PublishedFile.path` does.
    """
    if name not in EARTH:
        raise ValueError(f"no Earth data set {name!r}; there are {', '.join(EARTH)}")
    return read_csv(EARTH[name].path(data_dir))
