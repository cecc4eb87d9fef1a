"""SMILES as fixed-length sequences of integer tokens, and back."""

import re
from collections.abc import Mapping, Sequence
from itertools import takewhile

from jaxtyping import Int
from torch import Tensor

SPECIALS = ("<bos>", "<eos>", "<mask>", "<pad>", "<unk>")
"""Tokens that are not SMILES; ids 0 to 4. <mask> and <unk> keep the published numbering and never occur."""

QM9_TOKENS = (
    "#", "(", ")", "-", "1", "2", "3", "4", "5", "=", "C", "F", "N", "O",
    "[C-]", "[CH-]", "[N+]", "[N-]", "[NH+]", "[NH2+]", "[NH3+]", "[O-]",
    "[c-]", "[cH-]", "[n-]", "[nH+]", "[nH]", "c", "n", "o",
)  # fmt: skip
"""The 30 tokens of canonical QM9, in the order of UDLM's qm9_vocab.json; ids 5 to 34."""

VOCABULARY = SPECIALS + QM9_TOKENS
"""The K = 35 letters by id (the tokenizer published with UDLM seems to have 5 more, which QM9 never uses)."""

BOS, EOS, PAD = (SPECIALS.index(name) for name in ("<bos>", "<eos>", "<pad>"))

_OTHERS = [token for token in VOCABULARY if token[0] not in "[CFNOcno"]
CLASSES = tuple(1 + _OTHERS.index(token) if token in _OTHERS else 0 for token in VOCABULARY)
"""Class of each letter: 0 for all atoms, and one each for other letters, which are the grammar of SMILES."""

LENGTH = 32
"""Positions of the published layout, <bos> tokens <eos> <pad> ... <pad>: 30 tokens at most."""

# The expression of Schiff et al. (2024), "Simple guidance mechanisms for discrete diffusion models".
_TOKEN = re.compile(
    r"(\[[^\]]+]|Br?|Cl?|N|O|S|P|F|I|b|c|n|o|s|p|\(|\)|\.|=|#|-|\+|\\|\/|:|~|@|\?|>|\*|\$|\%[0-9]{2}|[0-9])"
)
_IDS = {letter: i for i, letter in enumerate(VOCABULARY)}


def tokenize(smiles: str) -> list[str]:
    """Split SMILES into tokens: a bracket atom, an atom, a bond, a branch or a ring number each.

    Raises ValueError for a character that begins no token.
    """
    tokens = _TOKEN.findall(smiles)
    if "".join(tokens) != smiles:
        rest = _TOKEN.sub("", smiles)
        raise ValueError(f"{smiles!r} holds {rest[0]!r}, which begins no token of SMILES")
    return tokens


def encode(smiles: str, length: int = LENGTH) -> list[int]:
    """Ids of <bos>, the tokens of SMILES, <eos>, and <pad> up to `length`.

    Raises ValueError for a token outside the vocabulary, and for more than length - 2 tokens.
    """
    return lay_out(smiles, tokenize(smiles), _IDS, length)


def lay_out(text: str, tokens: Sequence[str], ids: Mapping[str, int], length: int) -> list[int]:
    """Ids of <bos>, the tokens of a text, <eos>, and <pad> up to `length`.

    Raises ValueError for a token without an id, and for more than length - 2 tokens.
    """
    unknown = next((token for token in tokens if token not in ids), None)
    if unknown is not None:
        known = len(ids) - len(SPECIALS)
        raise ValueError(f"{text!r} has the token {unknown!r}, which is not among the {known} of QM9")
    if len(tokens) > length - 2:
        raise ValueError(f"{text!r} has {len(tokens)} tokens; at most {length - 2} fit")
    row = [BOS, *(ids[token] for token in tokens), EOS]
    return row + [PAD] * (length - len(row))


def decode(ids: Sequence[int]) -> str:
    """SMILES of a sequence of ids, cut at the first <eos> and without the other special tokens."""
    return written(ids, VOCABULARY)


def written(ids: Sequence[int], letters: Sequence[str]) -> str:
    """Letters of a sequence of ids, cut at the first <eos> and without the other special tokens."""
    body = takewhile(lambda i: i != EOS, ids)
    return "".join(letters[i] for i in body if i >= len(SPECIALS))


def to_smiles(tokens: Int[Tensor, "n length"]) -> list[str]:
    """Decode each row: what a generator wrote, molecule or not; possibly the empty string."""
    return [decode(row) for row in tokens.tolist()]
