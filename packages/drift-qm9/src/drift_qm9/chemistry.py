"""What RDKit says of a SMILES string: whether it is a molecule, its canonical form, and its properties."""

import io
from collections.abc import Iterable, Sequence
from contextlib import redirect_stderr
from functools import lru_cache
from typing import NamedTuple

from rdkit import Chem, DataStructs, rdBase
from rdkit.Chem import rdFingerprintGenerator, rdMolDescriptors

DESCRIPTORS = {
    "amw": "molecular weight (Da)",
    "CrippenClogP": "logP",
    "tpsa": "polar surface area (Å²)",
    "NumRings": "rings",
    "NumHBD": "hydrogen donors",
    "NumHBA": "hydrogen acceptors",
    "NumRotatableBonds": "rotatable bonds",
    "FractionCSP3": "fraction of sp3 carbons",
}
"""RDKit's name and a description of each of a molecule's descriptors."""

_MORGAN = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048)
_PROPERTIES = rdMolDescriptors.Properties(list(DESCRIPTORS))


class Molecule(NamedTuple):
    """A sanitised molecule."""

    smiles: str
    """RDKit's canonical SMILES, aromatic."""
    rings: tuple[int, ...]
    """Number of atoms of each ring of a smallest set of smallest rings, ascending."""
    descriptors: tuple[float, ...]
    """Values of `DESCRIPTORS`, in their order."""


def canonical(smiles: str) -> str:
    """RDKit's canonical, aromatic form of SMILES.

    Raises ValueError, with RDKit's reason, for what is not a molecule.
    """
    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(smiles) if smiles else None
    if mol is None:
        raise ValueError(f"{smiles!r} is not a molecule: {_reason(smiles)}")
    return Chem.MolToSmiles(mol)


@lru_cache(maxsize=2**17)
def molecule(smiles: str) -> Molecule | None:
    """Molecule that a generated string stands for; None for the empty string and for what RDKit rejects."""
    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(smiles) if smiles else None
    if mol is None:
        return None
    rings = tuple(sorted(map(len, mol.GetRingInfo().AtomRings())))
    return Molecule(Chem.MolToSmiles(mol), rings, tuple(_PROPERTIES.ComputeProperties(mol)))


def fingerprint(smiles: str) -> DataStructs.ExplicitBitVect:
    """Morgan fingerprint of a molecule, of radius 2 and 2,048 bits."""
    return _MORGAN.GetFingerprint(Chem.MolFromSmiles(smiles))


def nearest_similarities(smiles: Iterable[str], others: Sequence[DataStructs.ExplicitBitVect]) -> list[float]:
    """Tanimoto similarity of each molecule to the nearest of others, given by their fingerprints."""
    return [max(DataStructs.BulkTanimotoSimilarity(fingerprint(one), others)) for one in smiles]


def _reason(smiles: str) -> str:
    """The first message that RDKit logs when it rejects SMILES, without its time stamp.

    RDKit raises nothing for a syntax error, and only logs it; its log goes to C++ streams by default.
    """
    if not smiles:
        return "the string is empty"
    log = io.StringIO()
    rdBase.LogToPythonStderr()
    try:
        with redirect_stderr(log):
            Chem.MolFromSmiles(smiles)
    finally:
        rdBase.LogToCppStreams()
    first = next(iter(log.getvalue().splitlines()), "RDKit rejects it")
    return first.split("] ", 1)[-1].split(" for input:")[0].rstrip()
