"""The one-step generator of points on the sphere."""

from typing import Literal

import torch
from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Float
from torch import Generator, Tensor, nn

Geometry = Literal["spherical", "euclidean"]


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
    """Residual MLP from Gaussian noise [n, latent_dim] to points [n, 3]; untrained, they are near uniform.

    With geometry "spherical" the outputs are unit vectors. With "euclidean", the baseline, they are free
    in R^3 while training, and only `sample` projects them. The defaults have 0.5 million parameters (the
    paper's are not published). `save_pretrained(folder)` and `from_pretrained(folder)` keep the weights
    (safetensors) and the arguments (config.json). Raises ValueError for an unknown geometry.
    """

    def __init__(
        self,
        latent_dim: int = 16,
        width: int = 256,
        blocks: int = 4,
        geometry: Geometry = "spherical",
    ) -> None:
        super().__init__()
        if geometry not in ("spherical", "euclidean"):
            raise ValueError(f"geometry {geometry!r} is neither 'spherical' nor 'euclidean'")
        self.latent_dim = latent_dim
        self.geometry = geometry
        first = nn.Linear(latent_dim, width)
        nn.init.zeros_(first.bias)  # so that the untrained network is odd, and its outputs are balanced
        self.network = nn.Sequential(
            first,
            *(ResidualBlock(width) for _ in range(blocks)),
            nn.LayerNorm(width),
            nn.Linear(width, 3, bias=False),
        )

    def forward(self, z: Float[Tensor, "n latent"]) -> Float[Tensor, "n 3"]:
        """Points for latents z: unit vectors if the geometry is spherical."""
        x: Tensor = self.network(z)
        return to_sphere(x) if self.geometry == "spherical" else x

    def latent(self, n: int, generator: Generator) -> Float[Tensor, "n latent"]:
        """Draw `n` standard normal latents with a generator of any device."""
        noise = torch.randn(n, self.latent_dim, generator=generator, device=generator.device)
        return noise.to(next(self.parameters()))

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
