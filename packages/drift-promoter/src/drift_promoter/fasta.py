"""FASTA files of sequences."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from drift_core.files import atomic_path
from jaxtyping import Int64
from torch import Tensor

from drift_promoter.bases import decode

_COLUMNS = 60


def write_fasta(path: Path, names: Sequence[str], tokens: Int64[Tensor, "n length"]) -> None:
    """Write one record a sequence, 60 bases a line, under the header > and its name.

    Raises ValueError, before anything is written, unless there are as many names as sequences and each
    is one line of text.
    """
    if len(names) != len(tokens):
        raise ValueError(f"{path}: {len(names)} names for {len(tokens)} sequences")
    for name in names:
        if len(name.splitlines()) != 1:
            raise ValueError(f"{path}: the name {name!r} is not one line of text")
    with atomic_path(path) as part:
        part.write_text("".join(_records(names, map(decode, tokens.tolist()))), encoding="utf-8")


def _records(names: Iterable[str], sequences: Iterable[str]) -> Iterator[str]:
    for name, sequence in zip(names, sequences, strict=True):
        lines = [sequence[i : i + _COLUMNS] for i in range(0, len(sequence), _COLUMNS)]
        yield "\n".join([f">{name}", *lines, ""])
