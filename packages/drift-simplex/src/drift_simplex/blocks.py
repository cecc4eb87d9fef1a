"""Block sizes of computations over all pairs."""

from torch import Tensor

_PAIRS_CPU = 2**17
"""Pairs evaluated at once on a CPU: arrays that stay in the second-level cache."""
_PAIRS_CUDA = 2**24
"""Pairs evaluated at once on a GPU: enough to fill it."""
_REFERENCES_CPU, _REFERENCES_CUDA = 2**11, 2**14
"""References evaluated at once by default."""


def block_shape(x: Tensor, m: int, chunk_size: int | None) -> tuple[int, int]:
    """Queries and references to evaluate at once, for queries x and m references."""
    columns = min(m, chunk_size or (_REFERENCES_CUDA if x.is_cuda else _REFERENCES_CPU))
    return max(1, (_PAIRS_CUDA if x.is_cuda else _PAIRS_CPU) // columns), columns
