import json
import random

import pytest
import torch
from drift_qm9 import LENGTH, QM9_TOKENS, VOCABULARY, canonical, decode, encode, read_smi, to_smiles, tokenize


def test_the_layout_is_bos_tokens_eos_and_pads_with_the_published_ids():
    ids = encode("C#Cc1[nH]c1", 12)
    assert [VOCABULARY[i] for i in ids] == [
        "<bos>", "C", "#", "C", "c", "1", "[nH]", "c", "1", "<eos>", "<pad>", "<pad>",
    ]  # fmt: skip
    assert ids == [0, 15, 5, 15, 32, 9, 31, 32, 9, 1, 3, 3]
    assert len(VOCABULARY) == 35
    assert len(encode("C")) == LENGTH == 32


def test_the_vocabulary_is_that_of_the_reference(qm9_dir):
    published = json.loads((qm9_dir / "qm9" / "qm9_vocab.json").read_text())
    assert list(QM9_TOKENS) == sorted(published, key=published.__getitem__)
    assert list(published.values()) == list(range(30))


@pytest.mark.parametrize("token", QM9_TOKENS)
def test_every_token_is_one_token(token):
    assert tokenize(token) == [token]
    assert decode(encode(token)) == token
    assert tokenize(f"C{token}C") == ["C", token, "C"]


def test_any_sequence_of_tokens_comes_back():
    """No two neighbours merge, so that a string says which tokens it was made of."""
    choose = random.Random(0)
    for _ in range(300):
        tokens = choose.choices(QM9_TOKENS, k=choose.randint(0, 30))
        assert tokenize("".join(tokens)) == tokens
        assert decode(encode("".join(tokens))) == "".join(tokens)


def test_real_molecules_come_back(qm9_dir):
    lines = read_smi(qm9_dir / "qm9" / "qm9_smiles.txt")
    assert len(lines) == 133_885
    smiles = [canonical(text) for _, text in lines[::25]]
    ids = torch.tensor([encode(text) for text in smiles])
    assert to_smiles(ids) == smiles
    assert int((ids != 3).sum(1).max()) <= 24  # the longest has 22 tokens


def test_decoding_cuts_at_the_first_eos_and_drops_other_specials():
    bos, eos, mask, pad, unk = range(5)
    c, o = VOCABULARY.index("C"), VOCABULARY.index("O")
    assert decode([bos, c, mask, pad, unk, o, bos, eos, c, eos, pad]) == "CO"
    assert decode([c, o, c]) == "COC"
    assert decode([eos, c]) == ""
    assert to_smiles(torch.tensor([[bos, c, eos], [bos, eos, o]])) == ["C", ""]


@pytest.mark.parametrize(
    ("smiles", "message"),
    [
        ("CCl", "'CCl' has the token 'Cl', which is not among the 30 of QM9"),
        ("CC.O", r"the token '\.'"),
        ("C[13CH3]", r"the token '\[13CH3\]'"),
        ("C%12", "the token '%12'"),
        ("CXC", "'CXC' holds 'X', which begins no token"),
        ("C C", "holds ' '"),
        ("[nH", r"holds '\['"),
        ("C" * 31, "has 31 tokens; at most 30 fit"),
    ],
)
def test_what_does_not_fit_is_refused(smiles, message):
    with pytest.raises(ValueError, match=message):
        encode(smiles)
