"""The four Earth event data sets of Mathieu and Nickel (2020): where they are, and reading them."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import pooch
from jaxtyping import Float64
from torch import Tensor

from drift_sphere.table import read_csv

DATA_DIR_VARIABLE = "DRIFT_DATA_DIR"
"""The environment variable that names the data folder."""

_SOURCE = (
    "https://raw.githubusercontent.com/oxcsml/riemannian-score-sde/"
    "b35b739464ca8264e418e400301f5f45cb7a16b3/data"
)


@dataclass(frozen=True)
class EarthFile:
    """One data set: its file name, number of events, and sha256 of the file."""

    file: str
    rows: int
    sha256: str

    @property
    def url(self) -> str:
        """Where the file is downloaded from: one fixed commit of oxcsml/riemannian-score-sde."""
        return f"{_SOURCE}/{self.file}"


EARTH = {
    "volcano": EarthFile(
        "volerup.csv", 827, "f7bbaf32a412f5fe82350f48e0c55100be260803969c16557343f687fd0593fc"
    ),
    "earthquake": EarthFile(
        "quakes_all.csv", 6120, "3e5e1a10fb2faf1899106264289334037d039f00f5265d13dad388a93d8ff2f7"
    ),
    "flood": EarthFile("flood.csv", 4875, "ffb1e3182c3053afcdeceec4727c262a29da10255d20747c08144da5b0963486"),
    "fire": EarthFile("fire.csv", 12809, "c5c6c9490b1d8c58ba9eb78d9e2f82d1c1e62694ca5cff917c54600d3d83f459"),
}
"""The data sets by name."""


def load_earth(name: str, data_dir: str | Path | None = None) -> Float64[Tensor, "n 2"]:
    """Latitude and longitude in degrees of a data set in `EARTH`, checked by sha256.

    The file is read from `data_dir`, else the folder $DRIFT_DATA_DIR, as earth/<file> or <file>; if
    neither is given it is downloaded once into the user's cache.

    Raises ValueError for an unknown name or a file that is not the published one, FileNotFoundError
    for a folder without it, ConnectionError if it cannot be downloaded.
    """
    if name not in EARTH:
        raise ValueError(f"no Earth data set {name!r}; there are {', '.join(EARTH)}")
    folder = data_dir or os.environ.get(DATA_DIR_VARIABLE)
    return read_csv(_local(Path(folder), EARTH[name]) if folder else _cached(EARTH[name]))


def _local(folder: Path, entry: EarthFile) -> Path:
    places = (folder / "earth" / entry.file, folder / entry.file)
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise FileNotFoundError(f"neither {places[0]} nor {places[1]} exists; download {entry.url}")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != entry.sha256:
        raise ValueError(f"{path}: not the published file (sha256 {found}, not {entry.sha256})")
    return path


def _cached(entry: EarthFile) -> Path:
    cache = pooch.os_cache("drift") / "earth"
    try:
        return Path(pooch.retrieve(entry.url, f"sha256:{entry.sha256}", fname=entry.file, path=cache))
    except OSError as error:  # requests' errors are OSErrors too; their texts run over several lines
        reason = type(error).__name__
        raise ConnectionError(
            f"cannot download {entry.url} into {cache} ({reason}); "
            f"put the file into a folder and name that in {DATA_DIR_VARIABLE}"
        ) from error
    except ValueError:
        raise ValueError(f"{entry.url}: the downloaded file does not have sha256 {entry.sha256}") from None
