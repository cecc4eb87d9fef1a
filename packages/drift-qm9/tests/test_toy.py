from itertools import combinations, permutations, product

import pytest
from drift_qm9 import canonical, enumerate_molecules, tokenize
from drift_qm9.toy import HEAVY_ATOMS, TOY_LENGTH
from rdkit import Chem

VALENCE = {"C": 4, "N": 3, "O": 2, "F": 1}


def matrix(smiles):
    """Elements, and bond orders between all pairs of atoms, of a Kekulé form."""
    mol = Chem.MolFromSmiles(smiles)
    Chem.Kekulize(mol, clearAromaticFlags=True)
    atoms = tuple(atom.GetSymbol() for atom in mol.GetAtoms())
    order = {
        frozenset((b.GetBeginAtomIdx(), b.GetEndAtomIdx())): int(b.GetBondTypeAsDouble())
        for b in mol.GetBonds()
    }
    return atoms, {pair: order.get(frozenset(pair), 0) for pair in combinations(range(len(atoms)), 2)}


def connected(n, bonds):
    reached, fresh = {0}, [0]
    while fresh:
        i = fresh.pop()
        for pair, order in bonds.items():
            if order and i in pair:
                (other,) = {*pair} - {i}
                if other not in reached:
                    reached.add(other)
                    fresh.append(other)
    return len(reached) == n


def allowed(atoms, bonds):
    """The rules, read off a matrix of bond orders."""
    n, present = len(atoms), {pair: order for pair, order in bonds.items() if order}
    degree = [sum(order for pair, order in present.items() if i in pair) for i in range(n)]
    in_ring = {pair: order for pair, order in present.items() if connected(n, {**present, pair: 0})}
    doubles = [sum(order == 2 and i in pair for pair, order in in_ring.items()) for i in range(n)]
    return (
        all(used <= VALENCE[atom] for used, atom in zip(degree, atoms, strict=True))
        and all("C" in (atoms[i], atoms[j]) for i, j in present)
        and len(present) - n + 1 <= 2
        and 3 not in in_ring.values()
        and max(doubles) < 2
    )


def key(atoms, bonds):
    """The smallest of all numberings of a labelled graph: one for each molecule."""
    n = len(atoms)
    return min(
        (
            tuple(atoms[i] for i in p),
            tuple(bonds[min(p[i], p[j]), max(p[i], p[j])] for i, j in combinations(range(n), 2)),
        )
        for p in permutations(range(n))
    )


def brute_force(n):
    pairs = list(combinations(range(n), 2))
    found = set()
    for orders in product(range(4), repeat=len(pairs)):
        bonds = dict(zip(pairs, orders, strict=True))
        if connected(n, bonds):
            for atoms in product(VALENCE, repeat=n):
                if list(atoms) == sorted(atoms) and allowed(atoms, bonds):
                    found.add(key(atoms, bonds))
    return found


@pytest.mark.parametrize(("n", "count"), [(1, 4), (2, 9), (3, 46), (4, 259)])
def test_the_space_is_complete(n, count):
    """Against every labelled graph on n atoms, told apart by all of its numberings."""
    smiles = [s for s in enumerate_molecules(n) if len(matrix(s)[0]) == n]
    keys = {key(*matrix(s)) for s in smiles}
    assert len(keys) == len(smiles) == count
    assert keys == brute_force(n)


def test_every_molecule_obeys_the_rules_and_is_canonical(toy_smiles):
    for smiles in toy_smiles[::3]:
        atoms, bonds = matrix(smiles)
        assert len(atoms) <= HEAVY_ATOMS
        assert allowed(atoms, bonds)
        assert canonical(smiles) == smiles
        mol = Chem.MolFromSmiles(smiles)
        assert all(a.GetFormalCharge() == a.GetNumRadicalElectrons() == 0 for a in mol.GetAtoms())


def test_molecules_are_distinct_and_of_the_length_that_is_set_aside(toy_smiles):
    assert len(set(toy_smiles)) == len(toy_smiles) == 14_200
    assert max(len(tokenize(smiles)) for smiles in toy_smiles) == TOY_LENGTH - 2


def test_the_order_is_that_of_length(toy_smiles):
    few = enumerate_molecules(2)
    assert few == ["C", "F", "N", "O", "CC", "CF", "CN", "CO", "C#C", "C#N", "C=C", "C=N", "C=O"]
    assert set(few) <= set(toy_smiles)
