"""The one-step generator of points on the plane, the sphere or the hyperboloid."""

from typing import Literal

import torch
from drift_core.training.network import plain_mlp
from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Float
from torch import Generator, Tensor, nn

from drift_synthetic.chart import SPACES

SpaceName = Literal["plane", "sphere", "hyperboloid"]
Geometry = Literal["intrinsic", "euclidean"]


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


class SyntheticGenerator(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="drift-synthetic",
    tags=["drifting-model"],
    license="mit",
):
    """MLP from noise to points [n, d] of a space, the same network for every variant.

    A latent is the number of one of `codes` learned vectors, drawn uniformly, and `latent_dim` standard
    normal numbers, and the MLP is residual. With `codes` 0, as published, it is the normal numbers alone,
    through a plain MLP of `blocks` hidden layers with SiLU. Black squares meet at their corners only: a
    continuous map of Gaussian noise has to stretch some of its noise across the white ones, codes do not.

    With geometry "intrinsic" outputs are points: unit vectors on the sphere, exp_o of two outputs on the
    hyperboloid, drawn in smoothly to where float32 keeps the Minkowski norm (`Space.within`). With
    "euclidean", the baseline, they are free in the ambient space while training, and only `sample` projects
    them. On the plane both are the same. The defaults have 0.4 million parameters. `save_pretrained(folder)`
    and `from_pretrained(folder)` keep the weights (safetensors) and the arguments (config.json). Raises
    ValueError for an unknown space or geometry, and for an empty latent.
    """

    def __init__(
        self,
        space: SpaceName = "sphere",
        geometry: Geometry = "intrinsic",
        codes: int = 2048,
        latent_dim: int = 2,
        width: int = 128,
        blocks: int = 4,
    ) -> None:
        super().__init__()
        if space not in SPACES:
            raise ValueError(f"space must be one of {', '.join(SPACES)}; got {space!r}")
        if geometry not in ("intrinsic", "euclidean"):
            raise ValueError(f"geometry {geometry!r} is neither 'intrinsic' nor 'euclidean'")
        if codes < 0 or latent_dim < 0 or codes + latent_dim == 0:
            raise ValueError(f"a latent needs codes or normal numbers, got {codes} and {latent_dim}")
        self.space, self.geometry = SPACES[space], geometry
        self.latent_dim = latent_dim
        lifted = space == "hyperboloid" and geometry == "intrinsic"
        outputs = 2 if lifted else len(self.space.origin)
        self.noise = nn.Linear(latent_dim, width) if codes else None
        self.code = nn.Embedding(codes, width) if codes else None
        if self.noise is None:
            self.network = plain_mlp(latent_dim, width, blocks, outputs)
            return
        nn.init.normal_(self.noise.weight, std=0.05)  # a code's samples start close together
        self.network = nn.Sequential(
            *(ResidualBlock(width) for _ in range(blocks)),
            nn.LayerNorm(width),
            nn.Linear(width, outputs),
        )

    def forward(self, z: Float[Tensor, "n latent"]) -> Float[Tensor, "n d"]:
        """Points for latents z; free in the ambient space if the geometry is euclidean."""
        if self.code is not None and self.noise is not None:
            z = self.code(z[:, 0].long()) + self.noise(z[:, 1:])
        x: Tensor = self.network(z)
        if self.geometry == "euclidean":
            return x
        if self.space.name == "hyperboloid":
            return self.space.lift(self.space.within(x))
        return self.space.manifold.projx(x)

    def latent(self, n: int, generator: Generator) -> Float[Tensor, "n latent"]:
        """Draw `n` latents, code number first if there are codes, with a generator of any device."""
        device, parts = generator.device, []
        if self.code is not None:
            count = self.code.num_embeddings
            parts.append(torch.randint(count, (n, 1), generator=generator, device=device))
        parts.append(torch.randn(n, self.latent_dim, generator=generator, device=device))
        return torch.cat(parts, dim=1).to(next(self.parameters()))

    @torch.no_grad()
    def sample(self, n: int, generator: Generator, batch_size: int = 16_384) -> Float[Tensor, "n d"]:
        """Draw `n` points of the space, whatever the geometry; `batch_size` bounds memory alone."""
        latents = self.latent(n, generator)
        points = [self(z) for z in torch.split(latents, batch_size)]
        return torch.cat([self.space.manifold.projx(x) for x in points])
