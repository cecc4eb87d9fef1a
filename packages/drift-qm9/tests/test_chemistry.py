import pytest
from drift_qm9 import DESCRIPTORS, canonical, molecule, read_smi
from drift_qm9.chemistry import Fingerprints
from rdkit import Chem
from rdkit.Chem import Crippen, Descriptors, Lipinski, rdFingerprintGenerator, rdMolDescriptors
from rdkit.DataStructs import BulkTanimotoSimilarity


def test_spellings_of_a_molecule_have_one_canonical_form(qm9_dir):
    for _, smiles in read_smi(qm9_dir / "qm9" / "qm9_smiles.txt")[::400]:
        expected = canonical(smiles)
        mol = Chem.MolFromSmiles(smiles)
        spellings = {Chem.MolToSmiles(mol, doRandom=True) for _ in range(5)}
        assert {canonical(spelling) for spelling in spellings} == {expected}
        assert canonical(expected) == expected


def test_canonical_forms_are_aromatic():
    assert canonical("C1=CC=CN1") == canonical("C1C=CNC=1") == "c1cc[nH]c1"
    assert canonical("OCC") == "CCO"


@pytest.mark.parametrize(
    ("smiles", "reason"),
    [
        ("C1CC", "'C1CC' is not a molecule: .*unclosed ring$"),
        ("CC)", "extra close parentheses"),
        ("C(C)(C)(C)(C)C", "Explicit valence for atom # 0 C, 5, is greater than permitted"),
        ("c1cc1", "Can't kekulize mol"),
        ("C=c1cnc(C)cn=1", "cn=1' is not a molecule: Can't kekulize mol"),
        ("", "the string is empty"),
    ],
)
def test_what_rdkit_rejects_is_refused_with_its_reason_and_in_silence(smiles, reason, capfd):
    with pytest.raises(ValueError, match=reason) as caught:
        canonical(smiles)
    assert "\n" not in str(caught.value)
    assert molecule(smiles) is None
    assert capfd.readouterr() == ("", "")


def test_descriptors_are_those_of_rdkits_other_functions():
    functions = {
        "amw": Descriptors.MolWt,
        "CrippenClogP": Crippen.MolLogP,
        "tpsa": rdMolDescriptors.CalcTPSA,
        "NumRings": Lipinski.RingCount,
        "NumHBD": Lipinski.NumHDonors,
        "NumHBA": Lipinski.NumHAcceptors,
        "NumRotatableBonds": Lipinski.NumRotatableBonds,
        "FractionCSP3": Lipinski.FractionCSP3,
    }
    for smiles in ("CCO", "c1cc[nH]c1", "OC(=O)C1CC1", "N#CC12CC1C2", "C"):
        mol = Chem.MolFromSmiles(smiles)
        assert molecule(smiles).descriptors == pytest.approx([functions[name](mol) for name in DESCRIPTORS])


@pytest.mark.parametrize(
    ("smiles", "rings"), [("CC", ()), ("C1CC1C1CCC1", (3, 4)), ("C1CC2CC2C1", (3, 5)), ("c1ccccc1", (6,))]
)
def test_rings(smiles, rings):
    assert molecule(smiles).rings == rings


def test_the_nearest_molecule_is_that_of_rdkit(toy_smiles):
    others, new = toy_smiles[:300], [*toy_smiles[300:340], "C", "c1ccc2ccccc2c1", toy_smiles[0]]
    morgan = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048)
    every, known = (
        [morgan.GetFingerprint(Chem.MolFromSmiles(one)) for one in some] for some in (new, others)
    )
    expected = [max(BulkTanimotoSimilarity(one, known)) for one in every]
    assert [Fingerprints(others).nearest(one) for one in new] == expected
    assert expected[-1] == 1
    with pytest.raises(ValueError, match="no molecules"):
        Fingerprints([])
