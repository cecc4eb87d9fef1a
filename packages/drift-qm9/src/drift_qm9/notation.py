"""Notations of molecules: SMILES, and SELFIES, in which every sequence of tokens is a molecule."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal

import selfies
from jaxtyping import Int
from torch import Tensor

from drift_qm9.chemistry import canonical
from drift_qm9.composition import Composition
from drift_qm9.tokens import CLASSES, EOS, LENGTH, SPECIALS, VOCABULARY, decode, encode, lay_out, written

NotationName = Literal["smiles", "selfies"]

_ATOM = re.compile(r"\[?[=#]?([CNOF])", re.IGNORECASE)
"""The element of a letter that is an atom, in either notation."""


@dataclass(frozen=True)
class Notation:
    """A way to write molecules as sequences of letters, laid out as <bos> tokens <eos> <pad> ... <pad>."""

    name: NotationName
    letters: tuple[str, ...]
    """Letters by id, the special ones first."""
    classes: tuple[int, ...]
    """Class of each letter: atoms that the grammar does not tell apart have one."""
    length: int
    """Positions of a sequence, which hold every molecule of QM9."""
    encode: Callable[[str, int], list[int]]
    """Ids of a canonical SMILES at so many positions; raises ValueError for what cannot be written."""
    decode: Callable[[Sequence[int]], str]
    """SMILES of a sequence of ids."""

    @cached_property
    def composition(self) -> Composition:
        """Counts of a string's tokens, and of its nitrogen, oxygen, ring and branch letters."""
        kinds: list[list[int]] = [[], [], [], []]
        for i, letter in enumerate(self.letters):
            atom = _ATOM.match(letter)
            is_kind = (
                atom and atom[1].upper() == "N",
                atom and atom[1].upper() == "O",
                letter.isdigit() or "Ring" in letter,
                letter == "(" or "Branch" in letter,
            )
            for kind, has in zip(kinds, is_kind, strict=True):
                kind += [i] * bool(has)
        return Composition(EOS, tuple(map(tuple, kinds)))

    def to_smiles(self, tokens: Int[Tensor, "n length"]) -> list[str]:
        """SMILES of each row: what a generator wrote, molecule or not; possibly the empty string."""
        return list(map(self.decode, tokens.tolist()))


SELFIES_TOKENS = (
    "[#Branch1]", "[#Branch2]", "[#C]", "[#N]", "[=Branch1]", "[=Branch2]", "[=C]", "[=N+1]", "[=NH1+1]",
    "[=NH2+1]", "[=N]", "[=O]", "[=Ring1]", "[Branch1]", "[Branch2]", "[C-1]", "[CH1-1]", "[C]", "[F]",
    "[N+1]", "[N-1]", "[NH1+1]", "[NH1]", "[NH2+1]", "[NH3+1]", "[N]", "[O-1]", "[O]", "[Ring1]", "[Ring2]",
)  # fmt: skip
"""The 30 tokens of QM9 in SELFIES (Krenn et al. 2020), made of its canonical SMILES; ids 5 to 34."""

_LETTERS = SPECIALS + SELFIES_TOKENS
_IDS = {letter: i for i, letter in enumerate(_LETTERS)}
_LONGEST = 21
"""Tokens of QM9's longest molecule in SELFIES."""


def selfies_class(letter: str) -> str:
    """Letter of the class of a letter of SELFIES: atoms count by their bond, others for themselves."""
    if letter in SPECIALS or "Ring" in letter or "Branch" in letter:
        return letter
    return letter[1] if letter[1] in "=#" else "-"


_CLASSES = list(dict.fromkeys(map(selfies_class, _LETTERS)))


def encode_selfies(smiles: str, length: int = _LONGEST + 2) -> list[int]:
    """Ids of <bos>, the tokens of SMILES in SELFIES, <eos>, and <pad> up to `length`.

    Raises ValueError for what SELFIES cannot write, a token outside the vocabulary, and for more than
    length - 2 tokens.
    """
    try:
        tokens = list(selfies.split_selfies(selfies.encoder(smiles)))
    except selfies.EncoderError as error:
        raise ValueError(f"{smiles!r} has no SELFIES: {str(error).splitlines()[0]}") from None
    return lay_out(smiles, tokens, _IDS, length)


def decode_selfies(ids: Sequence[int]) -> str:
    """Canonical SMILES of a sequence of ids in SELFIES, cut as `decode` cuts it.

    Every sequence but an empty one is a molecule; should RDKit reject one, it is returned as it is written.
    """
    return _canonical(written(ids, _LETTERS))


@lru_cache(maxsize=2**18)
def _canonical(text: str) -> str:
    smiles = selfies.decoder(text)
    try:
        return canonical(smiles)
    except ValueError:
        return smiles


SMILES = Notation("smiles", VOCABULARY, CLASSES, LENGTH, encode, decode)
"""SMILES in the published layout and numbering."""

SELFIES = Notation(
    "selfies",
    _LETTERS,
    tuple(_CLASSES.index(selfies_class(letter)) for letter in _LETTERS),
    _LONGEST + 2,
    encode_selfies,
    decode_selfies,
)
"""SELFIES, made of canonical SMILES, and read back as canonical SMILES."""

NOTATIONS: dict[NotationName, Notation] = {notation.name: notation for notation in (SMILES, SELFIES)}
"""Notations by name."""
