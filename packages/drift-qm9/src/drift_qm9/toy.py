"""A small chemical space, complete by construction: every molecule that a few rules allow."""

from collections.abc import Iterable, Iterator
from itertools import combinations

from rdkit import Chem, rdBase

HEAVY_ATOMS = 6
"""The most heavy atoms of a toy molecule."""

TOY_LENGTH = 16
"""Positions of a toy sequence: 14 tokens, the most that toy molecules have, <bos> and <eos>."""

RULES = f"""
1 to {HEAVY_ATOMS} heavy atoms C, N, O, F of valence 4, 3, 2, 1; no charges, radicals, isotopes or stereo.
Heteroatoms are bonded to carbon only.
At most two independent rings; no triple bond and no two double bonds of one atom within a ring.
"""
"""What is a toy molecule."""

_ATOMIC_NUMBERS = (6, 7, 8, 9)
_BONDS = {1: Chem.BondType.SINGLE, 2: Chem.BondType.DOUBLE, 3: Chem.BondType.TRIPLE}
_MOST_RINGS = 2


def enumerate_molecules(heavy_atoms: int = HEAVY_ATOMS) -> list[str]:
    """Canonical SMILES of all molecules that `RULES` allow, with up to `heavy_atoms`, in order of length.

    Molecules grow by one bond at a time, to a new atom or between two old ones. What the rules forbid
    stays forbidden however a molecule grows on, so every allowed molecule is reached through allowed
    ones: take away its ring bonds and then its leaves in turn.
    """
    with rdBase.BlockLogs():
        layer = _distinct(_with_atom(Chem.RWMol(), number) for number in _ATOMIC_NUMBERS)
        smiles = set(layer)
        for _ in range(heavy_atoms - 1):
            layer = _distinct(child for mol in layer.values() for child in _with_leaf(mol))
            newest = layer
            while newest:
                closed = _distinct(child for mol in newest.values() for child in _with_ring_bond(mol))
                newest = {key: mol for key, mol in closed.items() if key not in layer}
                layer |= newest
            # Two Kekulé forms may be one aromatic molecule.
            smiles |= {Chem.MolToSmiles(Chem.MolFromSmiles(key)) for key in layer}
    return sorted(smiles, key=lambda s: (len(s), s))


def _distinct(mols: Iterable[Chem.RWMol]) -> dict[str, Chem.RWMol]:
    """The allowed among `mols`, one of each Kekulé structure, by the SMILES of that."""
    found: dict[str, Chem.RWMol] = {}
    for mol in mols:
        mol.UpdatePropertyCache()
        key = Chem.MolToSmiles(mol)
        if key not in found and not _strained(mol):
            found[key] = mol
    return found


def _with_atom(mol: Chem.RWMol, number: int) -> Chem.RWMol:
    child = Chem.RWMol(mol)
    child.AddAtom(Chem.Atom(number))
    return child


def _with_leaf(mol: Chem.RWMol) -> Iterator[Chem.RWMol]:
    """All ways to bond a new atom to an old one."""
    for number in _ATOMIC_NUMBERS:
        grown = _with_atom(mol, number)
        grown.UpdatePropertyCache()
        for i in range(mol.GetNumAtoms()):
            yield from _with_bond(grown, i, mol.GetNumAtoms())


def _with_ring_bond(mol: Chem.RWMol) -> Iterator[Chem.RWMol]:
    """All ways to bond two old atoms."""
    if mol.GetNumBonds() - mol.GetNumAtoms() + 1 < _MOST_RINGS:
        for i, j in combinations(range(mol.GetNumAtoms()), 2):
            if mol.GetBondBetweenAtoms(i, j) is None:
                yield from _with_bond(mol, i, j)


def _with_bond(mol: Chem.RWMol, i: int, j: int) -> Iterator[Chem.RWMol]:
    """Bonds of every order between atoms i and j that valences and rules allow."""
    a, b = mol.GetAtomWithIdx(i), mol.GetAtomWithIdx(j)
    if 6 not in (a.GetAtomicNum(), b.GetAtomicNum()):
        return
    for order in range(1, min(3, a.GetTotalNumHs(), b.GetTotalNumHs()) + 1):
        child = Chem.RWMol(mol)
        child.AddBond(i, j, _BONDS[order])
        yield child


def _strained(mol: Chem.RWMol) -> bool:
    """Whether a triple bond, or two double bonds of one atom, lie within a ring."""
    Chem.FastFindRings(mol)
    multiple: set[int] = set()
    for bond in mol.GetBonds():
        if bond.IsInRing() and bond.GetBondType() != Chem.BondType.SINGLE:
            ends = {bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()}
            if bond.GetBondType() == Chem.BondType.TRIPLE or ends & multiple:
                return True
            multiple |= ends
    return False
