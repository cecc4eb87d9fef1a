"""Notations of molecules: round trips, what SELFIES promises, and runs in it."""

import random
from pathlib import Path

import pytest
import torch
from drift_core.runs.domain import Run, untrained
from drift_core.seeds import generator_for
from drift_qm9 import (
    NOTATIONS,
    SELFIES,
    SMILES,
    MoleculeGenerator,
    canonical,
    molecule,
    read_smi,
    split,
    tokenise,
)
from drift_qm9.config import MoleculeConfig
from drift_qm9.domain import MoleculeDomain
from drift_qm9.evaluate import Measure
from drift_qm9.notation import SELFIES_TOKENS, selfies_class
from drift_qm9.tokens import BOS, EOS, PAD, SPECIALS
from rdkit import Chem


def test_smiles_is_the_published_layout():
    assert NOTATIONS["smiles"] is SMILES
    assert SMILES.encode("CO", 6) == [
        BOS,
        SMILES.letters.index("C"),
        SMILES.letters.index("O"),
        EOS,
        PAD,
        PAD,
    ]


@pytest.mark.parametrize("notation", NOTATIONS.values(), ids=lambda notation: notation.name)
def test_letters_of_both_notations_have_classes(notation):
    assert notation.letters[: len(SPECIALS)] == SPECIALS
    assert len(set(notation.letters)) == len(notation.letters) == len(notation.classes) == 35
    assert set(notation.classes) == set(range(max(notation.classes) + 1))


def test_toy_molecules_come_back_from_selfies(toy_smiles):
    ids = [SELFIES.encode(smiles, 16) for smiles in toy_smiles[::7]]
    assert SELFIES.to_smiles(torch.tensor(ids)) == toy_smiles[::7]


def test_real_molecules_come_back_from_selfies(qm9_dir):
    lines = read_smi(qm9_dir / "qm9" / "qm9_smiles.txt")
    smiles = [canonical(text) for _, text in lines[::50]]
    ids = torch.tensor([SELFIES.encode(text, SELFIES.length) for text in smiles])
    assert SELFIES.to_smiles(ids) == smiles


def test_every_sequence_is_a_molecule_in_selfies():
    """Whatever the tokens, RDKit's rules of valence hold, and the SMILES is canonical."""
    choose, letters = random.Random(0), range(len(SPECIALS), 35)
    for _ in range(400):
        ids = [BOS, letters[-3], *choose.choices(letters, k=choose.randint(0, 21)), EOS]
        smiles = SELFIES.decode(ids)
        assert molecule(smiles) is not None, smiles
        assert Chem.CanonSmiles(smiles) == smiles


def test_what_stands_behind_the_end_counts_for_nothing():
    carbon = SELFIES.letters.index("[C]")
    assert SELFIES.decode([BOS, carbon, EOS, carbon, PAD]) == "C"
    assert SELFIES.decode([BOS, EOS, carbon]) == ""


@pytest.mark.parametrize(
    ("smiles", "message"),
    [
        ("CCl", r"has the token '\[Cl\]', which is not among the 30 of QM9"),
        ("C" * 22, "has 22 tokens; at most 21 fit"),
        ("C(C)(C)(C)(C)C", "has no SELFIES: "),
    ],
)
def test_what_selfies_cannot_write_is_refused(smiles, message):
    with pytest.raises(ValueError, match=message):
        SELFIES.encode(smiles, SELFIES.length)


def test_atoms_count_by_their_bonds():
    named = dict(zip(SELFIES.letters, SELFIES.classes, strict=True))
    for letter in SELFIES_TOKENS:
        same = {other for other in SELFIES.letters if named[other] == named[letter]}
        if "Ring" in letter or "Branch" in letter:
            assert same == {letter}
        else:
            assert {other[1] in "=#" and other[1] for other in same} == {letter[1] in "=#" and letter[1]}
    assert selfies_class("[NH1+1]") == selfies_class("[F]") == "-"


def test_a_run_learns_and_samples_in_selfies(toy_smiles):
    lines = list(enumerate(toy_smiles[:200], start=1))
    data, plain = (
        split(*tokenise(lines, "toy", 16, notation=notation), notation=notation)
        for notation in (SELFIES, SMILES)
    )
    assert SELFIES.to_smiles(data.test) == SMILES.to_smiles(plain.test)
    config, domain = MoleculeConfig.of(notation="selfies", preset="mlp-small"), MoleculeDomain()
    assert domain.field(config, data).fields[1].map.count == max(SELFIES.classes) + 1
    generator = untrained(domain, config, data)
    strings = domain.sample(Run(Path(), config, data, generator), 50, seed=0)
    assert strings == SELFIES.to_smiles(generator.sample(50, generator_for(0, 2)))
    assert all(molecule(string) is not None for string in strings if string)
    measured = Measure(data, "test")(strings)
    assert measured["valid"] == sum(map(bool, strings)) / 50 > 0.8  # of as many random SMILES hardly any
    assert measured["novel_of_unique"] > 0.9


def test_a_saved_generator_knows_its_notation(tmp_path):
    model = MoleculeGenerator(length=8, width=8, blocks=0, heads=1, mlp_width=8, notation="selfies")
    model.save_pretrained(tmp_path)
    assert MoleculeGenerator.from_pretrained(tmp_path).notation == "selfies"
