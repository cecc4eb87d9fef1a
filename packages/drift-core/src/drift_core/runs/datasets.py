"""Published data files: in the user's folder, or downloaded once; pooch comes with `drift-core[data]`."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

DATA_DIR_VARIABLE = "DRIFT_DATA_DIR"
"""The environment variable that names the data folder."""


@dataclass(frozen=True)
class PublishedFile:
    """A published data file, identified by its sha256."""

    folder: str
    """Subfolder of the data folder and of the cache, one per domain."""
    name: str
    url: str
    """Address of the download, preferably at a fixed commit."""
    sha256: str

    def path(self, data_dir: str | Path | None = None) -> Path:
        """Path of the file, whose sha256 is checked.

        It is searched in `data_dir`, else in $DRIFT_DATA_DIR, as <folder>/<name> or <name>. If neither is
        set, it is downloaded once into the user's cache.

        Raises:
            ValueError: the file has another sha256.
            FileNotFoundError: the file is not in the folder.
            ConnectionError: the download fails.
        """
        folder = data_dir or os.environ.get(DATA_DIR_VARIABLE)
        return self._local(Path(folder)) if folder else self._downloaded()

    def _local(self, folder: Path) -> Path:
        paths = (folder / self.folder / self.name, folder / self.name)
        path = next((path for path in paths if path.is_file()), None)
        if path is None:
            raise FileNotFoundError(f"neither {paths[0]} nor {paths[1]} exists; download {self.url}")
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != self.sha256:
            raise ValueError(
                f"{path}: not the published file (sha256 {found}, not {self.sha256}); download {self.url}"
            )
        return path

    def _downloaded(self) -> Path:
        import pooch

        cache = cache_folder(self.folder)
        try:
            return Path(pooch.retrieve(self.url, f"sha256:{self.sha256}", fname=self.name, path=cache))
        except OSError as error:  # requests' errors are OSErrors too; their texts run over several lines
            raise ConnectionError(
                f"cannot download {self.url} into {cache} ({type(error).__name__}); "
                f"put the file into a folder and name that in {DATA_DIR_VARIABLE}"
            ) from error
        except ValueError:
            raise ValueError(f"{self.url}: the downloaded file does not have sha256 {self.sha256}") from None


def cache_folder(domain: str) -> Path:
    """A domain's folder in the user's cache, for downloads and files derived from them."""
    import pooch

    return Path(pooch.os_cache("drift")) / domain
