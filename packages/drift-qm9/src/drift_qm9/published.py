"""The published QM9 file: where it is, and that it is the right one."""

import hashlib
import os
from pathlib import Path

import pooch

DATA_DIR_VARIABLE = "DRIFT_DATA_DIR"
"""The environment variable that names the data folder."""

FILE = "qm9_smiles.txt"
SHA256 = "85f2f11ebb242a5bac7dfbb331479223582395fe8e4b6369973e47ea41627bbb"
URL = f"https://raw.githubusercontent.com/john-bradshaw/GraphVAE/3a92baa6ed8a4ca3c94e3d0d11bd2aab90fcd148/{FILE}"
"""One fixed commit; its README names figshare file 3195389, QM9 itself, as the source."""


def cache_folder() -> Path:
    """The user's cache of downloads and of tokenised data."""
    return Path(pooch.os_cache("drift")) / "qm9"


def qm9_file(data_dir: str | Path | None = None) -> Path:
    """Path of the 133,885 SMILES of QM9, checked by sha256.

    The file is looked for in `data_dir`, else the folder $DRIFT_DATA_DIR, as qm9/qm9_smiles.txt or
    qm9_smiles.txt; if neither is given it is downloaded once into the user's cache.

    Raises ValueError for a file that is not the published one, FileNotFoundError for a folder without
    it, ConnectionError if it cannot be downloaded.
    """
    folder = data_dir or os.environ.get(DATA_DIR_VARIABLE)
    return _local(Path(folder)) if folder else _downloaded(cache_folder())


def _local(folder: Path) -> Path:
    places = (folder / "qm9" / FILE, folder / FILE)
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise FileNotFoundError(f"neither {places[0]} nor {places[1]} exists; download {URL}")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != SHA256:
        raise ValueError(
            f"{path}: not the published file (sha256 {found}, not {SHA256}); --data reads any file"
        )
    return path


def _downloaded(cache: Path) -> Path:
    try:
        return Path(pooch.retrieve(URL, f"sha256:{SHA256}", fname=FILE, path=cache))
    except OSError as error:  # requests' errors are OSErrors too; their texts run over several lines
        raise ConnectionError(
            f"cannot download {URL} into {cache} ({type(error).__name__}); "
            f"put the file into a folder and name that in {DATA_DIR_VARIABLE}"
        ) from error
    except ValueError:
        raise ValueError(f"{URL}: the downloaded file does not have sha256 {SHA256}") from None
