"""Tokenised data sets, kept in the user's cache: one byte a token."""

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rdkit
from drift_core.files import atomic_path
from drift_core.runs.datasets import cache_folder
from numpy.typing import NDArray

VERSION = 1
"""Raise this when the same input is to give other tokens; settings and RDKit's version count already."""


class Tokenised(NamedTuple):
    """Rows of token ids, and how many lines of the input gave none."""

    ids: NDArray[np.uint8]
    """Shape [n, length]."""
    skipped: int


def stored(content: bytes, settings: dict[str, object], make: Callable[[], Tokenised]) -> Tokenised:
    """Tokens of `content` under `settings` from the cache, or else from `make`, which fills the cache.

    The name of the file is a digest of all that determines the tokens. It is a zip archive of arrays,
    whose checksums tell a damaged file, which is made again; it is written whole or not at all, so that
    two processes at once do each other no harm. Where the cache cannot be written it stays empty.
    """
    path = cache_folder("qm9") / f"tokens-{_key(content, settings)}.npz"
    kept = _read(path)
    if kept is None:
        kept = make()
        with suppress(OSError):  # a cache that cannot be written costs seconds, not the run
            _write(path, kept)
    return kept


def _key(content: bytes, settings: dict[str, object]) -> str:
    determined_by = {
        "version": VERSION,
        "rdkit": rdkit.__version__,
        "content": hashlib.sha256(content).hexdigest(),
        **settings,
    }
    return hashlib.sha256(json.dumps(determined_by, sort_keys=True).encode()).hexdigest()


def _read(path: Path) -> Tokenised | None:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return Tokenised(arrays["ids"], int(arrays["skipped"]))
    except Exception:  # whatever is wrong with the file, it is made again
        return None


def _write(path: Path, tokenised: Tokenised) -> None:
    with atomic_path(path) as part, part.open("wb") as file:
        np.savez_compressed(file, ids=tokenised.ids, skipped=np.int64(tokenised.skipped))
