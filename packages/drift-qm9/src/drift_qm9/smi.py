"""SMILES files: one molecule a line."""

from collections.abc import Iterable
from pathlib import Path

from drift_core.files import atomic_path, read_text

Line = tuple[int, str]
"""A line number, counted from 1, and the SMILES of that line."""


def read_smi(path: Path) -> list[Line]:
    """Read the first whitespace-separated column; what follows is a name.

    Blank lines and lines that start with '#' are skipped, and so is a header, a first line whose first
    column is the word SMILES in any case.

    Raises FileNotFoundError if there is no such file, and ValueError, naming the file and where possible
    the line, if it is a folder, is not UTF-8 text or holds no molecule.
    """
    lines = [
        (number, line.split()[0])
        for number, line in enumerate(read_text(path, "a file of SMILES").splitlines(), start=1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    if lines and lines[0][1].lower() == "smiles":
        del lines[0]
    if not lines:
        raise ValueError(f"{path}: the file holds no molecule; one SMILES a line is expected")
    return lines


def write_smi(path: Path, smiles: Iterable[str]) -> None:
    """Write one SMILES a line, as it is."""
    with atomic_path(path) as part:
        part.write_text("".join(f"{line}\n" for line in smiles), encoding="utf-8")
