"""A test bed where quality is exact: random strings, of which a generator should draw each equally often."""

from itertools import pairwise

import torch
from jaxtyping import Float, Int64
from torch import Generator, Tensor, nn

from drift_simplex.codebook import Codebook
from drift_simplex.geometry import abs_normalize, decode

_CODE = 32
"""Numbers in the learned vector of a code."""


def random_strings(count: int, length: int, letters: int, seed: int = 0) -> Int64[Tensor, "count length"]:
    """Distinct strings drawn uniformly from all letters^length; raises ValueError if there are too few."""
    if count > letters**length:
        raise ValueError(
            f"there are {letters**length} strings of {length} letters out of {letters}, not {count}"
        )
    generator, found = Generator().manual_seed(seed), torch.empty(0, length, dtype=torch.int64)
    while len(found) < count:
        more = torch.randint(letters, (count, length), generator=generator)
        found = torch.unique(torch.cat([found, more]), dim=0)
    return found[torch.randperm(len(found), generator=generator)[:count]]


def support_metrics(
    tokens: Int64[Tensor, "n length"], support: Int64[Tensor, "count length"]
) -> dict[str, float]:
    """How n strings compare with the uniform law on a support of distinct strings.

    "valid" is the share of them in the support, "covered" the share of the support among them, and
    "tv" the total variation distance (1/2) sum |p - q| between their law and the uniform one.
    """
    _, where = torch.unique(torch.cat([support, tokens]), dim=0, return_inverse=True)
    drawn = where[len(support) :].bincount(minlength=int(where.max()) + 1)[where[: len(support)]]
    p = drawn.double() / len(tokens)
    valid = float(p.sum())
    deviation = float((p - 1 / len(support)).abs().sum())
    covered = float((drawn > 0).double().mean())
    return {"valid": valid, "covered": covered, "tv": (deviation + 1 - valid) / 2}


class StringGenerator(nn.Module):
    """MLP from latents to points [n, length, letters] on the orthant, at first apart.

    A latent is `bits` fair signs or, if `codes` is not 0, the number of one of that many codes (`Codebook`).
    """

    def __init__(self, length: int, letters: int, bits: int = 16, width: int = 256, codes: int = 0) -> None:
        super().__init__()
        self.length, self.letters, self.bits = length, letters, bits
        self.codebook = Codebook(codes, _CODE) if codes else None
        widths = (_CODE, width, width) if codes else (bits, width, width, width)
        layers = [layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), nn.SiLU())]
        last = nn.Linear(width, length * letters)
        with torch.no_grad():
            last.weight.mul_(5)  # samples that start in one place repel one another too evenly to spread
        self.network = nn.Sequential(*layers, last)

    def forward(self, z: Float[Tensor, "n latent"]) -> Float[Tensor, "n length letters"]:
        """Points for latents."""
        hidden = z if self.codebook is None else self.codebook(z[:, 0])
        return abs_normalize(self.network(hidden).unflatten(1, (self.length, self.letters)))

    def latent(self, n: int, generator: Generator) -> Float[Tensor, "n latent"]:
        """Draw `n` latents: signs, or a code's number."""
        if self.codebook is not None:
            return self.codebook.draw(n, generator)[:, None]
        return 2.0 * torch.randint(2, (n, self.bits), generator=generator) - 1

    @torch.no_grad()
    def sample(self, n: int, generator: Generator) -> Int64[Tensor, "n length"]:
        """Draw `n` strings."""
        return decode(self(self.latent(n, generator)))
