"""What RDKit says of a SMILES string: whether it is a molecule, its canonical form, and its properties."""

import io
from collections.abc import Iterable
from contextlib import redirect_stderr
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rdkit import Chem, rdBase
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

_BITS = 2048
_MORGAN = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=_BITS)
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
    mol, form = _read(smiles)
    if mol is None:
        raise ValueError(f"{smiles!r} is not a molecule: {_reason(form or smiles)}")
    return form


@lru_cache(maxsize=2**17)
def molecule(smiles: str) -> Molecule | None:
    """Molecule that a generated string stands for; None for the empty string and for what RDKit rejects."""
    mol, form = _read(smiles)
    if mol is None:
        return None
    rings = tuple(sorted(map(len, mol.GetRingInfo().AtomRings())))
    return Molecule(form, rings, tuple(_PROPERTIES.ComputeProperties(mol)))


def _read(smiles: str) -> tuple[Chem.Mol | None, str]:
    """A molecule and its canonical form; None for what RDKit rejects, which its own forms can be."""
    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(smiles) if smiles else None
        form = Chem.MolToSmiles(mol) if mol else ""
        readable = form == smiles or bool(form and Chem.MolFromSmiles(form))
    return mol if readable else None, form


class Fingerprints:
    """Morgan fingerprints, of radius 2 and 2,048 bits, of molecules among which the nearest is sought."""

    def __init__(self, smiles: Iterable[str]) -> None:
        """Take the fingerprints of SMILES that RDKit reads; raises ValueError if there are none."""
        bits = [_bits(one) for one in smiles]
        if not bits:
            raise ValueError("there are no molecules to compare with")
        self._sizes, of_bit = np.array([len(one) for one in bits]), np.concatenate(bits)
        order = np.argsort(of_bit, kind="stable")
        rows = np.repeat(np.arange(len(bits)), self._sizes)[order]
        starts = np.searchsorted(of_bit[order], np.arange(1, _BITS))
        self._with_bit = np.split(rows, starts)

    def nearest(self, smiles: str) -> float:
        """Tanimoto similarity of a molecule to the nearest of these."""
        own = _bits(smiles)
        # Counted bit by bit of the few that a molecule has.
        rows = np.concatenate([self._with_bit[bit] for bit in own])
        common = np.bincount(rows, minlength=len(self._sizes))
        return float((common / (len(own) + self._sizes - common)).max())


@lru_cache(maxsize=2)
def fingerprints_of(smiles: frozenset[str]) -> Fingerprints:
    """Fingerprints of a data set; those of all of QM9 take ten seconds, and are kept for the next run."""
    return Fingerprints(smiles)


def _bits(smiles: str) -> NDArray[np.int32]:
    return np.array(_MORGAN.GetFingerprint(Chem.MolFromSmiles(smiles)).GetOnBits(), np.int32)


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
