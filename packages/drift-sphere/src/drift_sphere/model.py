"""The one-step generator of points on the sphere."""

from typing import Literal

import torch
from drift_core.training.network import plain_mlp
from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Float
from torch import Generator, Tensor, nn

Geometry = Literal["spherical", "euclidean"]

MOST_CODES = 2**20
"""The most codes whose branches float32 can number, 16 of each."""
_BRANCH_GAIN = 5.0
"""How many times as far as another weight a branch moves with an update of AdamW."""
_BRANCHES, _SPREAD, _LATENT_DIM = 16, 1e-3, 16
"""Branches of a code, the last step in radians, and normal numbers in a latent without codes."""


class ResidualBlock(nn.Module):
    """Pre-norm residual block h + W2 silu(W1 layernorm(h)), the identity at first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.inner = nn.Linear(width, width)
        self.outer = nn.Linear(width, width)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, h: Float[Tensor, "n width"]) -> Float[Tensor, "n width"]:
        """Hidden states after this block."""
        update: Tensor = self.outer(nn.functional.silu(self.inner(self.norm(h))))
        return h + update


class SphereGenerator(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="drift-sphere",
    tags=["drifting-model"],
    license="mit",
):
    """MLP from noise [n, latent] to points [n, 3]; untrained, they are near uniform.

    A latent is the number of a branch, drawn uniformly, and three standard normal numbers, which move the
    point at last, by `spread` radians in every direction. Every one of the `codes` has `branches`. A code is
    a learned vector, the input of a residual network. Events cluster on coasts and faults: a continuous map
    of Gaussian noise would have to stretch some of it across every gap between clusters, codes leave no
    boundary on which to land. A branch is a learned step in R^3 from where the network puts its code, zero at
    first: codes find the clusters, branches what is in them.

    With `codes` 0, as published, a latent is `latent_dim` standard normal numbers, which a plain MLP of
    `blocks` hidden layers with SiLU maps to the point. There are no branches and there is no last step.

    With geometry "spherical" the outputs are unit vectors. With "euclidean", the baseline, they are free
    in R^3 while training, and only `sample` projects them. The defaults have 0.5 million parameters (the
    paper's are not published). `save_pretrained(folder)` and `from_pretrained(folder)` keep the weights
    (safetensors) and the arguments (config.json).

    Args:
        codes: learned vectors; 0 for Gaussian noise through a plain MLP.
        branches: of a code; none: 16.
        width: of the hidden layers.
        blocks: residual blocks, or hidden layers of the plain MLP.
        geometry: "spherical" or "euclidean".
        spread: of the last step, in radians; none: 1e-3.
        latent_dim: normal numbers in a latent without codes; none: 16.

    Raises:
        ValueError: an unknown geometry, a number out of range, branches or a spread without codes, or a
            `latent_dim` with them.
    """

    def __init__(
        self,
        codes: int = 2048,
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
        _check_latent(codes, branches, spread, latent_dim)
        branches = _BRANCHES if branches is None else branches
        self.geometry = geometry
        self.spread = _SPREAD if spread is None else spread
        self.latent_dim = _LATENT_DIM if latent_dim is None else latent_dim
        self.code = nn.Embedding(codes, width) if codes else None
        self.branch = nn.Embedding(codes * branches, 3) if codes else None
        if self.branch is not None:
            nn.init.zeros_(self.branch.weight)
        self.network = residual_mlp(width, blocks) if codes else plain_mlp(self.latent_dim, width, blocks, 3)

    def forward(self, z: Float[Tensor, "n latent"]) -> Float[Tensor, "n 3"]:
        """Points for latents z: unit vectors if the geometry is spherical."""
        if self.code is None or self.branch is None:
            x: Tensor = self.network(z)
            return x if self.geometry == "euclidean" else to_sphere(x)
        branch, normal = z[:, 0].long(), z[:, 1:]
        x = self.network(self.code(branch % self.code.num_embeddings))
        step = _BRANCH_GAIN * self.branch(branch) + self.spread * normal
        return x + step if self.geometry == "euclidean" else to_sphere(to_sphere(x) + step)

    def latent(self, n: int, generator: Generator) -> Float[Tensor, "n latent"]:
        """Draw `n` latents, the number of the branch first, with a generator of any device."""
        device, like = generator.device, next(self.parameters())
        if self.branch is None:
            return torch.randn(n, self.latent_dim, generator=generator, device=device).to(like)
        branch = torch.randint(self.branch.num_embeddings, (n, 1), generator=generator, device=device)
        normal = torch.randn(n, 3, generator=generator, device=device)
        return torch.cat([branch, normal], dim=1).to(like)

    @torch.no_grad()
    def sample(self, n: int, generator: Generator, batch_size: int = 16_384) -> Float[Tensor, "n 3"]:
        """Draw `n` unit vectors, whatever the geometry; `batch_size` bounds memory, and changes no draw."""
        latents = self.latent(n, generator)
        return torch.cat([to_sphere(self(z)) for z in torch.split(latents, batch_size)])


def residual_mlp(width: int, blocks: int) -> nn.Sequential:
    """Residual blocks, a last norm, and three outputs."""
    return nn.Sequential(
        *(ResidualBlock(width) for _ in range(blocks)),
        nn.LayerNorm(width),
        nn.Linear(width, 3, bias=False),
    )


def _check_latent(codes: int, branches: int | None, spread: float | None, latent_dim: int | None) -> None:
    if codes < 0:
        raise ValueError(f"codes must not be negative, got {codes}")
    if codes == 0 and not (branches is None and spread is None):
        raise ValueError(f"branches and spread are of codes; got {branches} and {spread} without codes")
    if codes and latent_dim is not None:
        raise ValueError(f"latent_dim is of noise without codes; got {latent_dim} and {codes} codes")
    for name, number in (("branches", branches), ("latent_dim", latent_dim)):
        if number is not None and number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}")
    if spread is not None and not spread >= 0:
        raise ValueError(f"spread must not be negative, got {spread}")


def to_sphere(x: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
    """Unit vectors x / |x|, with finite gradients everywhere; 0 goes to the north pole."""
    norm = x.norm(dim=-1, keepdim=True)
    vanishes = norm < 1e-12
    pole = x.new_tensor([0.0, 0.0, 1.0])
    return torch.where(vanishes, pole, x / norm.masked_fill(vanishes, 1))
