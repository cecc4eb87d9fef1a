"""DNA as small integers: A, C, G, T are 0 to 3, and 4 is any letter that is not known."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Integer, UInt8
from torch import Tensor

VOCABULARY = "ACGT"
"""The letter of each base; that of base i pairs with that of base 3 - i."""

UNKNOWN = 4
"""What N, and every other letter, becomes."""

_CODES = np.full(256, UNKNOWN, dtype=np.uint8)
for _code, _letter in enumerate(VOCABULARY):
    _CODES[[ord(_letter), ord(_letter.lower())]] = _code
_NAMES = np.frombuffer(f"{VOCABULARY}N".encode(), dtype=np.uint8)
_COMPLEMENT = np.array([3, 2, 1, 0, UNKNOWN], dtype=np.uint8)


def encode(text: str) -> UInt8[np.ndarray, "n"]:
    """Bases of a sequence; lower case is read as upper case, and letters other than A, C, G, T as N.

    Raises:
        ValueError: the text has a character that is not ASCII.
    """
    try:
        return _CODES[np.frombuffer(text.encode("ascii"), dtype=np.uint8)]
    except UnicodeEncodeError as error:
        raise ValueError(
            f"a sequence has the character {text[error.start]!r}; bases are A, C, G, T"
        ) from None


def decode(bases: Integer[np.ndarray, "n"] | Integer[Tensor, "n"] | Sequence[int]) -> str:
    """Letters of bases, N for what is not known."""
    return _NAMES[np.asarray(bases, dtype=np.intp)].tobytes().decode()


def reverse_complement(bases: UInt8[np.ndarray, "*batch n"]) -> UInt8[np.ndarray, "*batch n"]:
    """The other strand, read in its own direction (the last axis is reversed); what is unknown stays so."""
    return _COMPLEMENT[bases[..., ::-1]]
