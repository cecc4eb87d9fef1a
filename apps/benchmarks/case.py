"""What a benchmark is: candidates that are measured side by side."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

Run = Callable[[], Tensor]
Candidates = dict[str, Run]


class Case(NamedTuple):
    """Candidates that are measured side by side: the one under test, and its baselines."""

    group: str
    name: str
    """Unique among all cases."""
    sizes: dict[str, int]
    """What grows: n, m, d, L, K."""
    build: Callable[[], Candidates]
    """Makes the inputs and the candidates, the one under test first; can be pickled."""
    memory: tuple[str, ...] = ()
    """Candidates whose peak memory is measured, each in a fresh process."""
    same: bool = True
    """Whether all candidates compute the same, so that their differences are errors."""
