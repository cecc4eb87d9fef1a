"""Floors of metrics, computed once for a data set and kept in a cache."""

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
from jaxtyping import Shaped
from torch import Tensor
from tqdm.auto import tqdm

from drift_core.files import atomic_path
from drift_core.runs.metrics import check_draws

Floors = list[dict[str, float]]
"""Floors of the metrics by name, for each draw."""

Key = Mapping[str, Shaped[np.ndarray, "..."] | Tensor | str | int | float]
"""What determines floors, by name: the data, the settings, and the version of the metrics."""


def cached_floors(folder: Path, key: Key, floor: Callable[[int], Mapping[str, float]], draws: int) -> Floors:
    """Floors of each draw, from the cache or else from `floor`, which fills the cache.

    The values are the same from either. A file is written whole or not at all, so that several processes can
    share the folder; a damaged file is written anew. If the folder cannot be written, nothing is kept.

    Args:
        folder: folder of the cache.
        key: all that determines the floors besides `draws`; its digest is the name of the file.
        floor: floors of the k-th draw; called for 0, 1, ..., draws - 1 in turn, or not at all.
        draws: number of draws.

    Raises:
        ValueError: draws < 1.
    """
    check_draws(draws)
    path = folder / f"floors-{_digest({**key, 'draws': draws})}.json"
    kept = _read(path)
    if kept is not None:
        return kept
    made = [
        {name: float(value) for name, value in floor(k).items()} for k in tqdm(range(draws), desc="floors")
    ]
    with suppress(OSError):  # a cache that cannot be written costs time, not the run
        _write(path, made)
    return made


def _digest(key: Key) -> str:
    """Digest of the names and values, whatever their order."""
    digest = hashlib.sha256()
    for name, value in sorted(key.items()):
        if isinstance(value, Tensor | np.ndarray):
            content = np.ascontiguousarray(
                value.detach().cpu().numpy() if isinstance(value, Tensor) else value
            )
            digest.update(f"{name}: {content.dtype.str} {content.shape} ".encode())
            digest.update(content.data)
        else:
            digest.update(f"{name}: {value!r}\n".encode())
    return digest.hexdigest()


def _read(path: Path) -> Floors | None:
    """Floors in a file; None if it is missing or damaged."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        floors: Floors = stored["floors"]
        return floors if stored["sha256"] == _checksum(floors) else None
    except Exception:  # whatever is wrong with the file, the floors are computed again
        return None


def _write(path: Path, floors: Floors) -> None:
    """Write floors with their checksum; JSON in Python's form keeps every digit, and NaN."""
    with atomic_path(path) as part:
        part.write_text(json.dumps({"floors": floors, "sha256": _checksum(floors)}), encoding="utf-8")


def _checksum(floors: Floors) -> str:
    return hashlib.sha256(json.dumps(floors).encode()).hexdigest()
