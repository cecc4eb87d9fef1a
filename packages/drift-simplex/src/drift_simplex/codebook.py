"""Learned codes, from which a generator makes its samples, in place of noise."""

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

MOST_CODES = 2**24
"""Codes are told apart by numbers that are drawn as float32, like all noise."""

_GAIN = 5.0
"""Factor of the learned vectors: a code is drawn once in many steps, and has to get on when it is."""


class Codebook(nn.Module):
    """Learned vectors, and latents that are their numbers.

    A code comes back to the same string until it is there, whatever becomes of the others. Where strings
    outnumber the batch, fresh noise is pulled another way at every step instead. A generator of codes alone
    knows no more strings than there are codes.

    Raises ValueError unless 1 <= size <= 2^24.
    """

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        if not 1 <= size <= MOST_CODES:
            raise ValueError(f"codes must lie in 1..{MOST_CODES}, got {size}")
        self.size = size
        self.vectors = nn.Embedding(size, width)
        nn.init.normal_(self.vectors.weight, std=1 / _GAIN)

    def forward(self, number: Float[Tensor, " n"]) -> Float[Tensor, "n width"]:
        """Vectors of numbered codes, of mean square 1 untrained."""
        vectors: Tensor = _GAIN * self.vectors(number.long())
        return vectors

    def draw(self, n: int, generator: Generator) -> Float[Tensor, " n"]:
        """Draw the numbers of n codes, evenly, with a generator of any device."""
        return torch.randint(self.size, (n,), generator=generator, device=generator.device).float()
