"""How good generated strings are as molecules, and how far from the data they are."""

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import pairwise

import numpy as np
from jaxtyping import Float

from drift_qm9.chemistry import DESCRIPTORS, Molecule, molecule
from drift_qm9.tokens import tokenize


def molecules(strings: Iterable[str]) -> list[Molecule]:
    """The molecules among generated strings: those that are not empty and that RDKit sanitises.

    No token is '.', so a molecule is one fragment, its own largest.
    """
    return [found for found in map(molecule, strings) if found is not None]


def quality(strings: Sequence[str], known: frozenset[str]) -> dict[str, float]:
    """Fractions valid, unique and novel, of n strings of which v are molecules and u distinct ones.

    valid = v / n, unique_of_valid = u / v, unique_of_all = u / n, novel = (distinct molecules that are not
    `known`) / v, novel_of_unique the same / u, and valid_and_novel the same / n. Molecules are compared by
    canonical SMILES, so that another spelling is neither distinct nor novel (the reference compares raw
    strings). `known` are canonical SMILES, of the training molecules in `evaluate`. Without any molecule all
    are 0.
    """
    canonical = [found.smiles for found in molecules(strings)]
    distinct = set(canonical)
    valid = max(1, len(canonical))
    return {
        "valid": len(canonical) / len(strings),
        "unique_of_valid": len(distinct) / valid,
        "unique_of_all": len(distinct) / len(strings),
        "novel": len(distinct - known) / valid,
        "novel_of_unique": len(distinct - known) / max(1, len(distinct)),
        "valid_and_novel": len(distinct - known) / len(strings),
    }


def wasserstein(x: Sequence[int], y: Sequence[int]) -> float:
    """Wasserstein-1 distance between two samples of integers: the area between their distributions."""
    low, high = min(*x, *y), max(*x, *y)
    at = np.arange(low, high)[:, None]
    return float(np.abs((np.asarray(x) <= at).mean(1) - (np.asarray(y) <= at).mean(1)).sum())


def total_variation(x: Mapping[Hashable, int], y: Mapping[Hashable, int]) -> float:
    """Total variation distance between two tables of counts, in [0, 1]; NaN if one of them is empty."""
    n, m = sum(x.values()), sum(y.values())
    if not n or not m:
        return math.nan
    return sum(abs(x.get(key, 0) / n - y.get(key, 0) / m) for key in {*x, *y}) / 2


def lengths(strings: Iterable[str]) -> list[int]:
    """Number of tokens of each string."""
    return [len(tokenize(string)) for string in strings]


def unigrams(strings: Iterable[str]) -> Counter[Hashable]:
    """How often each token occurs."""
    return Counter(token for string in strings for token in tokenize(string))


def bigrams(strings: Iterable[str]) -> Counter[Hashable]:
    """How often each pair of neighbouring tokens occurs; the ends of a string count as tokens."""
    return Counter(pair for string in strings for pair in pairwise(["", *tokenize(string), ""]))


def ring_counts(mols: Iterable[Molecule]) -> Counter[Hashable]:
    """How many molecules have each number of rings."""
    return Counter(len(mol.rings) for mol in mols)


def ring_sizes(mols: Iterable[Molecule]) -> Counter[Hashable]:
    """How many rings have each number of atoms; a molecule without rings counts as one of 0 atoms."""
    return Counter(size for mol in mols for size in mol.rings or (0,))


def descriptors(mols: Sequence[Molecule]) -> Float[np.ndarray, "n d"]:
    """Table of `drift_qm9.chemistry.DESCRIPTORS`, a row a molecule."""
    return np.array([mol.descriptors for mol in mols], dtype=np.float64).reshape(-1, len(DESCRIPTORS))
