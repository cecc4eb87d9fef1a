"""Download of the published archive (10 GB): `python -m drift_promoter.genome.archive FOLDER`."""

import argparse
import hashlib
import shutil
import sys
import tarfile
import zlib
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from ssl import SSLError
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from drift_core.files import atomic_path, naming
from drift_core.runs.datasets import cache_folder
from tqdm.auto import tqdm

from drift_promoter.genome.benchmark import NAMES
from drift_promoter.genome.digests import digest
from drift_promoter.genome.locks import locked

URL = "https://zenodo.org/api/records/7943307/files/data.tar.gz/content"
"""The data of DDSM (Avdeyev et al. 2023), Zenodo record 7943307."""

SIZE = 10_162_295_808
MD5 = "aa53f13ddcf1474962548bc02cbb9b93"

_CHUNK = 1 << 20
_TIMEOUT = 60
_NETWORK_ERRORS = (URLError, HTTPException, ConnectionError, TimeoutError, SSLError)


def download(folder: Path) -> None:
    """Download the archive into `folder` and unpack the files of the benchmark there, with progress bars.

    A download that stopped is continued from where it was, also by a later call. The archive is kept: it
    holds more, such as the weights of Sei.

    Raises:
        ConnectionError: the server cannot be reached, or sends no more.
        ValueError: what was downloaded does not have the published md5; it is removed then.
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / "data.tar.gz"
    with locked(folder / "data.tar.gz.lock"):
        missing = [name for name in NAMES if not (folder / name).is_file()]
        if missing and not archive.is_file():
            _fetch(archive)
        if missing:
            _unpack(archive, folder, set(missing))


def _fetch(archive: Path) -> None:
    part = archive.with_name(f"{archive.name}.part")
    part.touch()
    have = part.stat().st_size
    with _bar("download", SIZE) as bar:
        bar.update(have)
        while have < SIZE:
            why = _append(part, have, bar)
            before, have = have, part.stat().st_size
            if have <= before:
                raise ConnectionError(
                    f"{URL} sends no more{why}; {part} has {have:,} of {SIZE:,} bytes, run again to continue"
                )
    if digest(part, hashlib.md5(usedforsecurity=False), _bar("md5", SIZE)) != MD5:
        part.unlink()
        raise ValueError(f"{URL}: what was downloaded does not have md5 {MD5}; it was removed, run again")
    part.replace(archive)


def _append(part: Path, have: int, bar: tqdm) -> str:
    """Add to a file what the server sends from byte `have` on, or all if it sends that; why it stopped."""
    try:
        with urlopen(Request(URL, headers={"Range": f"bytes={have}-"}), timeout=_TIMEOUT) as response:
            goes_on = response.status == 206
            bar.update(0 if goes_on else -have)
            with naming(part), part.open("ab" if goes_on else "wb") as file:
                while chunk := response.read(_CHUNK):
                    file.write(chunk)
                    bar.update(len(chunk))
    except HTTPError as error:
        error.close()
        return f" ({error})"
    except _NETWORK_ERRORS as error:
        return f" ({type(error).__name__}: {error})"
    return ""


def _unpack(archive: Path, folder: Path, names: set[str]) -> None:
    """Write the regular members with these names into `folder`, whatever folders they have in the archive."""
    left = set(names)
    try:
        with (
            archive.open("rb") as compressed,
            tqdm.wrapattr(compressed, "read", archive.stat().st_size, desc="unpack", leave=False) as file,
            tarfile.open(fileobj=file, mode="r|gz") as tar,
        ):
            for member in tar:
                name = PurePosixPath(member.name).name
                content = tar.extractfile(member) if member.isreg() and name in left else None
                if content is not None:
                    with atomic_path(folder / name) as part, part.open("wb") as out:
                        shutil.copyfileobj(content, out, _CHUNK)
                    left.remove(name)
                if not left:
                    return
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise ValueError(f"{archive}: damaged ({error}); remove it and run again") from None
    raise ValueError(f"{archive} holds no {', no '.join(sorted(left))}")


def _bar(what: str, size: int) -> tqdm:
    return tqdm(total=size, desc=what, unit="B", unit_scale=True, unit_divisor=1024, leave=False)


def main() -> None:
    """Download into the folder that the command line names, else into the user's cache."""
    parser = argparse.ArgumentParser(prog="python -m drift_promoter.genome.archive", description=__doc__)
    parser.add_argument(
        "folder", type=Path, nargs="?", default=cache_folder("promoter"), help="default: %(default)s"
    )
    folder = parser.parse_args().folder
    try:
        download(folder)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"{folder} holds the benchmark's files; data.tar.gz there is not needed for them any more")


if __name__ == "__main__":
    main()
