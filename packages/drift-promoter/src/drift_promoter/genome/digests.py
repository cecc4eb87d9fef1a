"""sha256 of large files, which is computed once for each state of a file."""

import hashlib
import json
import time
from contextlib import suppress
from pathlib import Path

from drift_core.files import write_json
from tqdm.auto import tqdm

_CHUNK = 1 << 22
_FRESH = 2 * 10**9
"""A file younger than this (nanoseconds) may change again within the resolution of its time."""


def sha256(path: Path, memory: Path) -> str:
    """sha256 of a file, from the JSON file `memory` if that knows it by path, size and time of change.

    Where `memory` cannot be read or written the digest is computed each time.

    Raises:
        OSError: the file cannot be read.
    """
    stat = path.stat()
    name, state = str(path.resolve()), [stat.st_size, stat.st_mtime_ns]
    found = _recall(memory).get(name)
    if isinstance(found, list) and found[:2] == state and isinstance(found[-1], str):
        return found[-1]
    digest = _computed(path, stat.st_size)
    if time.time_ns() - stat.st_mtime_ns > _FRESH:
        with suppress(OSError):
            write_json(memory, {**_recall(memory), name: [*state, digest]})
    return digest


def _recall(memory: Path) -> dict[str, object]:
    try:
        known = json.loads(memory.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return known if isinstance(known, dict) else {}


def _computed(path: Path, size: int) -> str:
    what = f"sha256 of {path.name}"
    bar = tqdm(total=size, desc=what, unit="B", unit_scale=True, leave=False, delay=1)
    return digest(path, hashlib.sha256(), bar)


def digest(path: Path, algorithm: "hashlib._Hash", bar: tqdm) -> str:
    """Digest of a file in hexadecimal, with a progress bar."""
    with path.open("rb") as file, bar:
        while chunk := file.read(_CHUNK):
            algorithm.update(chunk)
            bar.update(len(chunk))
    return algorithm.hexdigest()
