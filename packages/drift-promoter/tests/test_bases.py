import numpy as np
import pytest
import torch
from drift_promoter.bases import UNKNOWN, decode, encode, reverse_complement


def test_letters_are_read_in_either_case_and_others_are_unknown():
    assert encode("ACGTacgtNnRy-").tolist() == [0, 1, 2, 3, 0, 1, 2, 3, *[UNKNOWN] * 5]
    assert encode("").shape == (0,)
    with pytest.raises(ValueError, match="the character 'é'"):
        encode("ACGTé")


TEXT = "".join(np.random.default_rng(0).choice(list("ACGTN"), 1000))


@pytest.mark.parametrize("text", ["", "A", "N", TEXT])
def test_what_is_encoded_is_decoded(text):
    bases = encode(text)
    assert decode(bases) == decode(bases.tolist()) == decode(torch.from_numpy(bases).long()) == text


@pytest.mark.parametrize("text", ["", "A", "N", "GATTACA", TEXT])
def test_the_reverse_complement_pairs_a_with_t_and_c_with_g(text):
    pairs = {"A": "T", "C": "G", "G": "C", "T": "A", "N": "N"}
    other = reverse_complement(encode(text))
    assert decode(other) == "".join(pairs[letter] for letter in reversed(text))
    assert decode(reverse_complement(other)) == text


def test_the_reverse_complement_is_taken_of_every_row():
    rows = np.arange(8, dtype=np.uint8).reshape(2, 4) % 5
    assert [row.tolist() for row in reverse_complement(rows)] == [
        reverse_complement(row).tolist() for row in rows
    ]
