"""Reading text, and writing files atomically: whole or not at all."""

import json
import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PART = ".part."
"""Prefix of the names of unfinished files."""


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Context in which an OSError that names no file (a full disk), or an unfinished one, names `path`."""
    try:
        yield
    except OSError as error:
        if error.errno is None or (error.filename and not Path(error.filename).name.startswith(PART)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Temporary path to write to; at the end of the context it replaces `path` atomically.

    Raises:
        OSError: the file cannot be written; an existing file is left unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with naming(path):
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f"{PART}{path.stem}.", suffix=path.suffix)
        os.close(handle)
        part = Path(name)
        try:
            yield part
            sync(part)
            part.chmod(0o666 & ~umask())
            part.replace(path)
            sync(path.parent)
        finally:
            part.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def umask() -> int:
    """Permission bits that this process clears in new files."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def read_text(path: Path, expected: str) -> str:
    """Text of a UTF-8 file, without a byte-order mark; `expected` says in messages what the file should be.

    Raises:
        ValueError: the path is a folder, or a line, which is named, is not UTF-8.
        FileNotFoundError: there is no such file.
    """
    if path.is_dir():
        raise ValueError(f"{path}: a folder, not {expected}")
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}, line {line}: not UTF-8 text") from None


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, atomically; NaN and infinities, which JSON lacks, become null."""
    with atomic_path(path) as part:
        part.write_text(json.dumps(finite_or_none(value), indent=2, allow_nan=False) + "\n")


def finite_or_none(value: Any) -> Any:
    """The value with None in place of every number that is NaN or infinite."""
    if isinstance(value, dict):
        return {key: finite_or_none(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite_or_none(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
