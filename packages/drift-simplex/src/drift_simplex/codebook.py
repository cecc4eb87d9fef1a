"""A learned codebook, whose entries a generator maps to samples."""

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

MAX_CODEBOOK_SIZE = 2**24
"""Entries of the largest codebook: latents are float32, which holds integers exactly up to 2^24."""

_GAIN = 5.0
"""Factor of the learned vectors, which enlarges their updates: each entry is sampled in few of the steps."""


class Codebook(nn.Module):
    """Learned vectors (entries); a latent is the index of one.

    An entry converges to one string over many steps, independently of the others. A fresh continuous latent
    is instead attracted to a different string at every step, if strings outnumber the batch. A generator
    without other latents produces at most `size` different strings.

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
        """Entries with the given indices; their initial mean square is 1."""
        return _GAIN * self.vectors(index.long())

    def draw(self, n: int, generator: Generator) -> Float[Tensor, " n"]:
        """Sample the indices of n entries uniformly, with a generator on any device."""
        return torch.randint(self.size, (n,), generator=generator, device=generator.device).float()
