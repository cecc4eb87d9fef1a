import math
from collections import Counter

import numpy as np
import pytest
import scipy.stats
from drift_qm9 import quality, total_variation, wasserstein
from drift_qm9.chemistry import DESCRIPTORS
from drift_qm9.metrics import bigrams, descriptors, lengths, molecules, ring_counts, ring_sizes, unigrams

# Ethanol twice, in two spellings; methane; an unclosed ring; nothing.
STRINGS = ["CCO", "OCC", "C", "C1CC", ""]


def test_quality_by_hand():
    assert quality(STRINGS, frozenset({"CCO"})) == {
        "valid": 3 / 5,
        "unique_of_valid": 2 / 3,
        "unique_of_all": 2 / 5,
        "novel": 1 / 3,
        "novel_of_unique": 1 / 2,
        "valid_and_novel": 1 / 5,
    }
    assert quality(["C1", ""], frozenset()) == dict.fromkeys(
        ("valid", "unique_of_valid", "unique_of_all", "novel", "novel_of_unique", "valid_and_novel"), 0
    )


def test_molecules_are_told_apart_by_canonical_form():
    assert [mol.smiles for mol in molecules(STRINGS)] == ["CCO", "CCO", "C"]


def test_wasserstein_is_that_of_scipy():
    draw = np.random.default_rng(0)
    for _ in range(20):
        x, y = (draw.integers(0, 12, size).tolist() for size in (30, 17))
        assert wasserstein(x, y) == pytest.approx(scipy.stats.wasserstein_distance(x, y))
    assert wasserstein([3, 5], [5, 3]) == 0
    assert wasserstein([0], [4]) == 4


def test_total_variation_by_hand():
    assert total_variation({"C": 3, "N": 1}, {"C": 1, "N": 3}) == 0.5
    assert total_variation({"C": 3}, {"N": 7}) == 1
    assert total_variation({"C": 2, "N": 2}, {"N": 5, "C": 5}) == 0
    assert math.isnan(total_variation({}, {"C": 1}))


def test_statistics_of_strings_by_hand():
    strings = ["C[nH]c", "C", ""]
    assert lengths(strings) == [3, 1, 0]
    assert unigrams(strings) == Counter({"C": 2, "[nH]": 1, "c": 1})
    assert bigrams(strings) == Counter(
        {("", "C"): 2, ("C", "[nH]"): 1, ("[nH]", "c"): 1, ("c", ""): 1, ("C", ""): 1, ("", ""): 1}
    )


def test_statistics_of_rings_by_hand():
    mols = molecules(["CC", "C1CC1", "C1CC2CC2C1"])
    assert ring_counts(mols) == Counter({0: 1, 1: 1, 2: 1})
    assert ring_sizes(mols) == Counter({0: 1, 3: 2, 5: 1})


def test_descriptors_are_a_row_a_molecule():
    mols = molecules(["C", "CCO"])
    assert descriptors(mols).tolist() == [list(mol.descriptors) for mol in mols]
    assert descriptors([]).shape == (0, len(DESCRIPTORS))
