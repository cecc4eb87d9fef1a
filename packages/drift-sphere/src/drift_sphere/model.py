"""The one-step generator of points on the sphere."""

from typing import Literal

import torch
from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Float
from torch import Generator, Tensor, nn

Geometry = Literal["spherical", "euclidean"]

_BRANCH_GAIN = 5.0
"""How many times as far as another weight a branch moves with an update of AdamW."""


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
    """Residual MLP from noise [n, 1 + 3] to points [n, 3]; untrained, they are near uniform.

    A latent is the number of a branch, drawn uniformly, and three standard normal numbers, which move the
    point at last, by `spread` radians in every direction. Every one of the `codes` has `branches`. A code is
    a learned vector, the network's input. Events cluster on coasts and faults: a continuous map of Gaussian
    noise would have to stretch some of it across every gap between clusters, codes leave no boundary on which
    to land. A branch is a learned step in R^3 from where the network puts its code, zero at first: codes find
    the clusters, branches what is in them.

    With geometry "spherical" the outputs are unit vectors. With "euclidean", the baseline, they are free
    in R^3 while training, and only `sample` projects them. The defaults have 0.5 million parameters (the
    paper's are not published). `save_pretrained(folder)` and `from_pretrained(folder)` keep the weights
    (safetensors) and the arguments (config.json). Raises ValueError for an unknown geometry, no codes or
    branches, or a negative spread.
    """

    def __init__(
        self,
        codes: int = 2048,
        branches: int = 16,
        width: int = 128,
        blocks: int = 4,
        geometry: Geometry = "spherical",
        spread: float = 1e-3,
    ) -> None:
        super().__init__()
        if geometry not in ("spherical", "euclidean"):
            raise ValueError(f"geometry {geometry!r} is neither 'spherical' nor 'euclidean'")
        if min(codes, branches) < 1:
            raise ValueError(f"codes and branches must be at least 1, got {codes} and {branches}")
        if not spread >= 0:
            raise ValueError(f"spread must not be negative, got {spread}")
        self.geometry = geometry
        self.spread = spread
        self.code = nn.Embedding(codes, width)
        self.branch = nn.Embedding(codes * branches, 3)
        nn.init.zeros_(self.branch.weight)
        self.network = nn.Sequential(
            *(ResidualBlock(width) for _ in range(blocks)),
            nn.LayerNorm(width),
            nn.Linear(width, 3, bias=False),
        )

    def forward(self, z: Float[Tensor, "n latent"]) -> Float[Tensor, "n 3"]:
        """Points for latents z: unit vectors if the geometry is spherical."""
        branch, normal = z[:, 0].long(), z[:, 1:]
        x: Tensor = self.network(self.code(branch % self.code.num_embeddings))
        step = _BRANCH_GAIN * self.branch(branch) + self.spread * normal
        return x + step if self.geometry == "euclidean" else to_sphere(to_sphere(x) + step)

    def latent(self, n: int, generator: Generator) -> Float[Tensor, "n latent"]:
        """Draw `n` latents, the number of the branch first, with a generator of any device."""
        device = generator.device
        branch = torch.randint(self.branch.num_embeddings, (n, 1), generator=generator, device=device)
        normal = torch.randn(n, 3, generator=generator, device=device)
        return torch.cat([branch, normal], dim=1).to(self.code.weight)

    @torch.no_grad()
    def sample(self, n: int, generator: Generator, batch_size: int = 16_384) -> Float[Tensor, "n 3"]:
        """Draw `n` unit vectors, whatever the geometry; `batch_size` bounds memory, and changes no draw."""
        latents = self.latent(n, generator)
        return torch.cat([to_sphere(self(z)) for z in torch.split(latents, batch_size)])


def to_sphere(x: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
    """Unit vectors x / |x|, with finite gradients everywhere; 0 goes to the north pole."""
    norm = x.norm(dim=-1, keepdim=True)
    vanishes = norm < 1e-12
    pole = x.new_tensor([0.0, 0.0, 1.0])
    return torch.where(vanishes, pole, x / norm.masked_fill(vanishes, 1))
