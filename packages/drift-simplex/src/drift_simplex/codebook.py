"""A learned codebook, whose entries a generator maps to samples."""

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

MAX_CODEBOOK_SIZE = 2**24
"""Entries of the largest codebook: float32, the type of all latents, tells their indices apart."""

_GAIN = 5.0
"""Factor of the learned vectors: each entry is drawn once in many steps, and then takes a large step."""


class Codebook(nn.Module):
    """Learned vectors (entries); a latent is the index of one.

    An entry moves towards the same string until it is there, independently of the others. Fresh noise is
    instead attracted to another string at every step, where strings outnumber the batch. A generator without
    other latents makes at most `size` different strings.

    Raises ValueError unless 1 <= size <= 2^24.
    """

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        if not 1 <= size <= MAX_CODEBOOK_SIZE:
            raise ValueError(f"the codebook size must lie in 1..{MAX_CODEBOOK_SIZE}, got {size}")
        self.size = size
        self.vectors = nn.Embedding(size, width)
        nn.init.normal_(self.vectors.weight, std=1 / _GAIN)

    def forward(self, index: Float[Tensor, " n"]) -> Float[Tensor, "n width"]:
        """Entries by their indices, of mean square 1 untrained."""
        vectors: Tensor = _GAIN * self.vectors(index.long())
        return vectors

    def draw(self, n: int, generator: Generator) -> Float[Tensor, " n"]:
        """Draw the indices of n entries uniformly, with a generator of any device."""
        return torch.randint(self.size, (n,), generator=generator, device=generator.device).float()
