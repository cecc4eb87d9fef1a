"""The one-step generator of points on the sphere."""

from typing import Literal

import torch
from drift_core.training.network import in_batches, plain_mlp, residual_mlp
from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Float
from torch import Generator, Tensor, nn

Geometry = Literal["spherical", "euclidean"]

MAX_CODEBOOK_SIZE = 2**20
"""Entries of the largest codebook: float32 holds the indices of its branches, 16 per entry, exactly."""
_BRANCH_GAIN = 5.0
"""Factor of the branches, which makes their updates by AdamW this many times as large."""
_BRANCHES, _SPREAD, _LATENT_DIM = 16, 1e-3, 16
"""Branches per entry, spread in radians, and latent dimension without a codebook."""


class SphereGenerator(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="drift-sphere",
    tags=["drifting-model"],
    license="mit",
    paper_url="https://arxiv.org/abs/2605.10727",
):
    """MLP from latents [n, latent] to points [n, 3], nearly uniform before training.

    A latent is the index of a branch, sampled uniformly, and three standard normal numbers. Each of the
    `codebook_size` learned entries has `branches` (none: 16). A residual network of `blocks` maps the entry
    to a point; the branch adds a learned step in R^3, initially zero, and the normal numbers one of `spread`
    radians (none: 1e-3). Events cluster on coasts and faults: a continuous map of Gaussian latents would
    place samples in the gaps between clusters, a codebook need not.

    With `codebook_size` 0, as published, a latent is `latent_dim` (none: 16) standard normal numbers, which a
    plain MLP of `blocks` hidden layers with SiLU maps to the point, without further steps.

    With geometry "spherical" the outputs are unit vectors. With "euclidean", the baseline, they are free
    in R^3 while training, and only `sample` projects them. The defaults have 0.5 million parameters (the
    paper's are not published). `save_pretrained(folder)` and `from_pretrained(folder)` keep the weights
    (safetensors) and the arguments (config.json).

    Raises:
        ValueError: an unknown geometry, a number out of range, branches or a spread without a codebook, or a
            `latent_dim` with one.
    """

    def __init__(
        self,
        codebook_size: int = 2048,
        branches: int | None = None,
        width: int = 128,
        blocks: int = 4,
        geometry: Geometry = "spherical",
        spread: float | None = None,
        latent_dim: int | None = None,
    ) -> None:
        super().__init__()
        if geometry not in ("spherical", "euclidean"):
            raise ValueError(f"geometry {geometry!r} is neither 'spherical' nor 'euclidean'")
        _check_latent(codebook_size, branches, spread, latent_dim)
        branches = _BRANCHES if branches is None else branches
        self.geometry = geometry
        self.spread = _SPREAD if spread is None else spread
        self.latent_dim = _LATENT_DIM if latent_dim is None else latent_dim
        self.codebook = nn.Embedding(codebook_size, width) if codebook_size else None
        self.branch = nn.Embedding(codebook_size * branches, 3) if codebook_size else None
        if self.branch is not None:
            nn.init.zeros_(self.branch.weight)
        if codebook_size:
            self.network = residual_mlp(width, blocks, 3, bias=False)
        else:
            self.network = plain_mlp(self.latent_dim, width, blocks, 3)

    def forward(self, z: Float[Tensor, "n latent"]) -> Float[Tensor, "n 3"]:
        """Points for latents z: unit vectors if the geometry is spherical."""
        if self.codebook is None or self.branch is None:
            x: Tensor = self.network(z)
            return x if self.geometry == "euclidean" else to_sphere(x)
        branch, normal = z[:, 0].long(), z[:, 1:]
        x = self.network(self.codebook(branch % self.codebook.num_embeddings))
        step = _BRANCH_GAIN * self.branch(branch) + self.spread * normal
        return x + step if self.geometry == "euclidean" else to_sphere(to_sphere(x) + step)

    def latent(self, n: int, generator: Generator) -> Float[Tensor, "n latent"]:
        """Sample `n` latents, the index of the branch first, with a generator on any device."""
        device, like = generator.device, next(self.parameters())
        if self.branch is None:
            return torch.randn(n, self.latent_dim, generator=generator, device=device).to(like)
        branch = torch.randint(self.branch.num_embeddings, (n, 1), generator=generator, device=device)
        normal = torch.randn(n, 3, generator=generator, device=device)
        return torch.cat([branch, normal], dim=1).to(like)

    @torch.no_grad()
    def sample(self, n: int, generator: Generator, batch_size: int = 16_384) -> Float[Tensor, "n 3"]:
        """Sample `n` unit vectors, for either geometry; `batch_size` only bounds memory."""
        latents, device = self.latent(n, generator), next(self.parameters()).device
        return in_batches(lambda z: to_sphere(self(z)), latents, batch_size=batch_size, device=device)


def _check_latent(size: int, branches: int | None, spread: float | None, latent_dim: int | None) -> None:
    if size < 0:
        raise ValueError(f"codebook_size must not be negative, got {size}")
    if size == 0 and not (branches is None and spread is None):
        raise ValueError(f"branches and spread need a codebook; got {branches} and {spread} without one")
    if size and latent_dim is not None:
        raise ValueError(f"latent_dim is for no codebook; got {latent_dim} and {size} entries")
    for name, number in (("branches", branches), ("latent_dim", latent_dim)):
        if number is not None and number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}")
    if spread is not None and not spread >= 0:
        raise ValueError(f"spread must not be negative, got {spread}")


def to_sphere(x: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
    """Unit vectors x / |x|, with finite gradients everywhere; 0 maps to the north pole."""
    norm = x.norm(dim=-1, keepdim=True)
    vanishes = norm < 1e-12
    pole = x.new_tensor([0.0, 0.0, 1.0])
    return torch.where(vanishes, pole, x / norm.masked_fill(vanishes, 1))
