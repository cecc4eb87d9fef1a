"""Molecules as token ids, for training, validation and testing."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from drift_core.runs.datasets import PublishedFile
from jaxtyping import Int64, UInt8
from torch import Tensor
from tqdm.auto import tqdm

from drift_qm9.cache import Tokenised, stored
from drift_qm9.chemistry import canonical
from drift_qm9.notation import NOTATIONS, SMILES, Notation, NotationName
from drift_qm9.smi import Line, read_smi
from drift_qm9.toy import RULES, TOY_LENGTH, enumerate_molecules

QM9 = PublishedFile(
    "qm9",
    "qm9_smiles.txt",
    "https://raw.githubusercontent.com/john-bradshaw/GraphVAE/3a92baa6ed8a4ca3c94e3d0d11bd2aab90fcd148/qm9_smiles.txt",
    "85f2f11ebb242a5bac7dfbb331479223582395fe8e4b6369973e47ea41627bbb",
)
"""The 133,885 SMILES; the README at this commit names figshare file 3195389, QM9 itself, as the source."""

DATASETS = ("toy", "qm9")
"""The names that `load` knows."""

MIN_MOLECULES = 40
"""The fewest molecules that can be split: two for validation, two for testing."""


@dataclass(frozen=True)
class Molecules:
    """Token ids [n, length] for training, validation (selection) and testing (reports)."""

    train: Int64[Tensor, "n length"]
    val: Int64[Tensor, "m length"]
    test: Int64[Tensor, "k length"]
    skipped: int = 0
    """Lines of the input that are not among them."""
    complete: bool = False
    """Whether the three together are all molecules that there are, as in toy."""
    notation: Notation = SMILES
    """What the ids mean."""


def load(
    dataset: str = "toy",
    data: str | Path | None = None,
    data_dir: str | Path | None = None,
    *,
    skip_bad: bool = False,
    notation: NotationName = "smiles",
    seed: int = 42,
) -> Molecules:
    """Load, tokenise and split the file `data` (.smi) if given, else the data set called `dataset`.

    `dataset` is "toy" (enumerated: `drift_qm9.toy`) or "qm9", the published file (`QM9.path`). SMILES
    are made canonical by RDKit and written in a notation, smiles or selfies; tokens are kept in the user's
    cache. All rows are kept, as in the reference: QM9's 133,885 are 133,798 distinct molecules.

    With `skip_bad`, lines of a file that RDKit rejects, that have a token outside the vocabulary or too
    many tokens are counted and left out.

    Raises ValueError, naming file and line, for such lines otherwise, for fewer than 40 molecules or
    copies of a single one, and an unknown name; and as `read_smi` and `QM9.path` do.
    """
    written = NOTATIONS[notation]
    if data is not None:
        return split(*_of_file(Path(data), skip_bad, written), seed=seed, notation=written)
    if dataset == "qm9":
        return split(*_of_file(QM9.path(data_dir), skip_bad, written), seed=seed, notation=written)
    if dataset == "toy":
        tokenised = stored(RULES.encode(), _settings(written, TOY_LENGTH), partial(_toy, written))
        return split(*tokenised, seed=seed, complete=True, notation=written)
    raise ValueError(f"no data set {dataset!r}; there are {', '.join(DATASETS)}")


def split(
    ids: UInt8[np.ndarray, "n length"],
    skipped: int = 0,
    *,
    seed: int = 42,
    complete: bool = False,
    notation: Notation = SMILES,
) -> Molecules:
    """Split rows of token ids into ceil(n / 20) for testing, as many for validation, and the rest.

    The test rows are those that `datasets.Dataset.train_test_split(test_size=0.05, seed=42)` takes, which
    is the reference's 95/5 split (of rows in this order; the reference has QM9 in GDB order). The
    validation rows come out of its training part.
    """
    part = math.ceil(0.05 * len(ids))
    order = np.random.default_rng(seed).permutation(len(ids))
    test, val, train = (
        torch.from_numpy(ids[rows].astype(np.int64)) for rows in np.split(order, [part, 2 * part])
    )
    return Molecules(train, val, test, skipped, complete, notation)


def tokenise(
    lines: Sequence[Line], source: str, length: int, skip_bad: bool = False, notation: Notation = SMILES
) -> Tokenised:
    """Canonicalise and encode numbered SMILES; about 10 seconds for QM9, with a progress bar.

    Raises ValueError naming `source` and the line for SMILES that cannot be used, unless `skip_bad`, and
    if too few can, or all are one molecule.
    """
    rows, first_bad = [], ""
    for number, smiles in tqdm(
        lines, desc="tokenise", leave=False, mininterval=0.5, disable=len(lines) < 1000
    ):
        try:
            rows.append(notation.encode(canonical(smiles), length))
        except ValueError as error:
            first_bad = first_bad or f"{source}, line {number}: {error}"
            if not skip_bad:
                raise ValueError(first_bad) from None
    skipped = len(lines) - len(rows)
    if len(rows) < MIN_MOLECULES:
        why = f" ({skipped} lines were skipped; {first_bad})" if skipped else ""
        raise ValueError(f"{source}: {len(rows)} molecules; at least {MIN_MOLECULES} are needed{why}")
    ids = np.array(rows, dtype=np.uint8)
    if (ids == ids[0]).all():
        raise ValueError(
            f"{source}: all {len(ids)} lines are one molecule; at least 2 distinct ones are needed"
        )
    return Tokenised(ids, skipped)


def _of_file(path: Path, skip_bad: bool, notation: Notation) -> Tokenised:
    lines, length = read_smi(path), notation.length
    make = partial(tokenise, lines, str(path), length, skip_bad, notation)
    return stored(path.read_bytes(), {**_settings(notation, length), "skip_bad": skip_bad}, make)


def _toy(notation: Notation) -> Tokenised:
    rows = [notation.encode(smiles, TOY_LENGTH) for smiles in enumerate_molecules()]
    return Tokenised(np.array(rows, dtype=np.uint8), 0)


def _settings(notation: Notation, length: int) -> dict[str, object]:
    """What determines tokens, beside the molecules."""
    return {"notation": notation.name, "letters": notation.letters, "length": length}
