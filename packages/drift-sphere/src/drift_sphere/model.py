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
    """Residual MLP from noise [n, 1 + latent_dim + 3] to points [n, 3]; untrained, they are near uniform.

    A latent is the number of one of `codes` learned vectors, drawn uniformly, `latent_dim` standard
    normal numbers, and three more, which the network does not see: they move the point at last, by `spread`
    radians in every direction. Events cluster on coasts and faults: a continuous map of Gaussian noise alone
    has to stretch some of its noise across every gap between clusters, codes leave no boundary on which to
    land. But samples of one code would end closer to one another than to any event, which `spread` prevents.

    With geometry "spherical" the outputs are unit vectors. With "euclidean", the baseline, they are free
    in R^3 while training, and only `sample` projects them. The defaults have 0.4 million parameters (the
    paper's are not published). `save_pretrained(folder)` and `from_pretrained(folder)` keep the weights
    (safetensors) and the arguments (config.json). Raises ValueError for an unknown geometry, no codes, or
    a negative spread.
    """

    def __init__(
        self,
        codes: int = 2048,
        latent_dim: int = 2,
        width: int = 128,
        blocks: int = 4,
        geometry: Geometry = "spherical",
        spread: float = 0.002,
    ) -> None:
        super().__init__()
        if geometry not in ("spherical", "euclidean"):
            raise ValueError(f"geometry {geometry!r} is neither 'spherical' nor 'euclidean'")
        if codes < 1:
            raise ValueError(f"codes must be at least 1, got {codes}")
        if not spread >= 0:
            raise ValueError(f"spread must not be negative, got {spread}")
        self.latent_dim = latent_dim
        self.geometry = geometry
        self.spread = spread
        self.code = nn.Embedding(codes, width)
        self.noise = nn.Linear(latent_dim, width, bias=False)
        nn.init.normal_(self.noise.weight, std=0.2)  # a code's samples start close together
        self.network = nn.Sequential(
            *(ResidualBlock(width) for _ in range(blocks)),
            nn.LayerNorm(width),
            nn.Linear(width, 3, bias=False),
        )

    def forward(self, z: Float[Tensor, "n latent"]) -> Float[Tensor, "n 3"]:
        """Points for latents z: unit vectors if the geometry is spherical."""
        code, noise, last = z[:, 0].long(), z[:, 1:-3], z[:, -3:]
        x: Tensor = self.network(self.code(code) + self.noise(noise))
        if self.geometry == "euclidean":
            return x + self.spread * last
        return to_sphere(to_sphere(x) + self.spread * last)

    def latent(self, n: int, generator: Generator) -> Float[Tensor, "n latent"]:
        """Draw `n` latents, code number first and the last step last, with a generator of any device."""
        device = generator.device
        code = torch.randint(self.code.num_embeddings, (n, 1), generator=generator, device=device)
        noise = torch.randn(n, self.latent_dim + 3, generator=generator, device=device)
        return torch.cat([code, noise], dim=1).to(self.code.weight)

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
