"""Classes of letters: a coarser alphabet, as a map of soft points and of tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from drift_core import Field, PullbackField, TableField
from drift_core.manifold.numerics import safe_sqrt
from jaxtyping import Float, Integer
from torch import Tensor
from torch.nn.functional import one_hot

from drift_simplex.geometry import FisherRao


@dataclass(frozen=True)
class LetterClasses:
    """Map from letters to classes of letters, which sums the probabilities of a class.

    A point's coordinates are roots of probabilities: that of class c is the norm of those of its letters.
    Vertices are mapped to vertices, and the Fisher-Rao distance of two points never increases.

    Raises ValueError unless the classes are numbered 0..C-1, each with at least one letter.
    """

    of_letter: Sequence[int]
    """Class of each of the K letters."""

    def __post_init__(self) -> None:
        if sorted(set(self.of_letter)) != list(range(len(set(self.of_letter)))) or not self.of_letter:
            raise ValueError(f"classes must be numbered from 0 without gaps, got {list(self.of_letter)}")

    @property
    def count(self) -> int:
        """Number of classes C."""
        return len(set(self.of_letter))

    def __call__(self, x: Float[Tensor, "n L K"]) -> Float[Tensor, "n L C"]:
        """Points of the classes."""
        return safe_sqrt(x.square() @ self._members.to(x))

    def tokens(self, tokens: Integer[Tensor, "m L"]) -> Integer[Tensor, "m L"]:
        """Classes of tokens."""
        return torch.tensor(self.of_letter, device=tokens.device)[tokens.long()]

    @cached_property
    def _members(self) -> Float[Tensor, "K C"]:
        return one_hot(torch.tensor(self.of_letter), self.count).float()


def class_field(classes: LetterClasses, field: Field, tokens: Integer[Tensor, "m L"]) -> PullbackField:
    """Field of whole strings of classes of letters, whose data are all strings of classes that occur.

    Strings outnumber what training sees, their classes recur: a string that is not in the data may have the
    classes of one that is. Alone it does not tell letters of a class apart.

    Args:
        classes: the classes of letters.
        field: the drift field of strings of classes, on tokens.
        tokens: all data; their distinct strings of classes attract, by their counts.
    """
    distinct, counts = torch.unique(classes.tokens(tokens), dim=0, return_counts=True)
    return PullbackField(classes, TableField(field, distinct, counts), FisherRao(), map_data=_unchanged)


def _unchanged(data: Tensor) -> Tensor:
    return data
