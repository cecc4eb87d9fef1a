"""Random strings as a test bed: the target is uniform on a known support, so that metrics are exact."""

from itertools import pairwise

import torch
from drift_simplex import Codebook, abs_normalize, decode
from drift_simplex.generator import draw_latents
from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Float, Int64
from torch import Generator, Tensor, nn

_EMBEDDING = 32
"""Width of the codebook entries."""


def random_strings(count: int, length: int, vocab_size: int, seed: int = 0) -> Int64[Tensor, "count length"]:
    """Draw distinct strings uniformly from all vocab_size^length strings.

    Raises ValueError if there are too few.
    """
    if count > vocab_size**length:
        raise ValueError(
            f"there are {vocab_size**length} strings of {length} letters out of {vocab_size}, not {count}"
        )
    generator, found = Generator().manual_seed(seed), torch.empty(0, length, dtype=torch.int64)
    while len(found) < count:
        more = torch.randint(vocab_size, (count, length), generator=generator)
        found = torch.unique(torch.cat([found, more]), dim=0)
    return found[torch.randperm(len(found), generator=generator)[:count]]


def support_metrics(
    tokens: Int64[Tensor, "n length"], support: Int64[Tensor, "count length"]
) -> dict[str, float]:
    """Compare n strings with the uniform distribution on a support of distinct strings.

    "valid" is the fraction of the strings in the support, "covered" the fraction of the support among the
    strings, and "tv" the total variation distance (1/2) sum |p - q| between the two distributions.
    """
    _, where = torch.unique(torch.cat([support, tokens]), dim=0, return_inverse=True)
    drawn = where[len(support) :].bincount(minlength=int(where.max()) + 1)[where[: len(support)]]
    p = drawn.double() / len(tokens)
    valid = float(p.sum())
    deviation = float((p - 1 / len(support)).abs().sum())
    covered = float((drawn > 0).double().mean())
    return {"valid": valid, "covered": covered, "tv": (deviation + 1 - valid) / 2}


class StringGenerator(nn.Module, PyTorchModelHubMixin):
    """MLP from latents to points [n, length, vocab_size] on the positive orthant of the sphere.

    A latent is `channels` Bernoulli (+-1) numbers or, with a codebook, the index of an entry (`Codebook`).
    """

    def __init__(
        self, length: int, vocab_size: int, channels: int = 16, width: int = 256, codebook_size: int = 0
    ) -> None:
        super().__init__()
        self.length, self.vocab_size, self.channels = length, vocab_size, channels
        self.codebook = Codebook(codebook_size, _EMBEDDING) if codebook_size else None
        widths = (_EMBEDDING, width, width) if codebook_size else (channels, width, width, width)
        layers = [layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), nn.SiLU())]
        last = nn.Linear(width, length * vocab_size)
        with torch.no_grad():
            last.weight.mul_(5)  # samples that start close together repel one another too evenly to spread
        self.network = nn.Sequential(*layers, last)

    def forward(self, z: Float[Tensor, "n latent"]) -> Float[Tensor, "n length vocab"]:
        """Points for latents."""
        hidden = z if self.codebook is None else self.codebook(z[:, 0])
        return abs_normalize(self.network(hidden).unflatten(1, (self.length, self.vocab_size)))

    def latent(self, n: int, generator: Generator) -> Float[Tensor, "n latent"]:
        """Draw `n` latents: Bernoulli (+-1) numbers, or the index of a codebook entry."""
        if self.codebook is not None:
            return self.codebook.draw(n, generator)[:, None]
        return draw_latents((n, self.channels), "bernoulli", generator)

    @torch.no_grad()
    def sample(self, n: int, generator: Generator) -> Int64[Tensor, "n length"]:
        """Draw `n` strings."""
        return decode(self(self.latent(n, generator)))
