"""The one-step generator of points of a space."""

from typing import Literal

import torch
from drift_core.training.network import in_batches, plain_mlp, residual_mlp
from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Float
from torch import Generator, Tensor, nn

from drift_synthetic.space import Space
from drift_synthetic.spaces import SpaceName, find_space

Geometry = Literal["intrinsic", "euclidean"]

MAX_CODEBOOK_SIZE = 2**24
"""Entries of the largest codebook: latents are float32, which holds integers exactly up to 2^24."""


class SyntheticGenerator(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="drift-synthetic",
    tags=["drifting-model"],
    license="mit",
    paper_url="https://arxiv.org/abs/2605.10727",
):
    """MLP from latents [n, latent] to points [n, d] of a space, the same network for every variant.

    A latent is the index of one of `codebook_size` learned entries, sampled uniformly, and `latent_dim`
    standard normal numbers. The input of a residual MLP of `blocks` is the sum of the entry and a linear map
    of the numbers. Black squares meet at their corners only: a continuous map of Gaussian latents would place
    samples in the white ones, a codebook need not.

    With `codebook_size` 0, as published, a latent is the normal numbers alone, which a plain MLP of `blocks`
    hidden layers with SiLU maps to the point.

    With geometry "intrinsic" outputs are mapped to points (`Space.point`): projected to unit vectors, unit
    quaternions, angles modulo 2 pi or the nearest point of a mesh; on the hyperboloid exp_o of two outputs,
    smoothly contracted to where float32 keeps the Minkowski norm (`ChartSpace.within`). With
    "euclidean", the baseline, they are free in the ambient space while training, and only `sample` projects
    them. On the plane both are the same. `mesh` is the file of the surface of space "mesh", None the default
    surface. The defaults have 0.4 million parameters. `save_pretrained(folder)` and `from_pretrained(folder)`
    keep the weights (safetensors) and the arguments (config.json).

    Raises:
        ValueError: an unknown space or geometry, or an empty latent.
    """

    def __init__(
        self,
        space: SpaceName = "sphere",
        geometry: Geometry = "intrinsic",
        codebook_size: int = 2048,
        latent_dim: int = 2,
        width: int = 128,
        blocks: int = 4,
        mesh: str | None = None,
    ) -> None:
        super().__init__()
        self.space_name, self.mesh = space, mesh
        if geometry not in ("intrinsic", "euclidean"):
            raise ValueError(f"geometry {geometry!r} is neither 'intrinsic' nor 'euclidean'")
        if codebook_size < 0 or latent_dim < 0 or codebook_size + latent_dim == 0:
            raise ValueError(
                f"a latent needs codebook entries or normal numbers, got {codebook_size} and {latent_dim}"
            )
        self.geometry, self.latent_dim = geometry, latent_dim
        outputs = self.space.outputs if geometry == "intrinsic" else len(self.space.columns)
        self.linear = nn.Linear(latent_dim, width) if codebook_size else None
        self.codebook = nn.Embedding(codebook_size, width) if codebook_size else None
        if self.linear is None:
            self.network = plain_mlp(latent_dim, width, blocks, outputs)
        else:
            nn.init.normal_(self.linear.weight, std=0.05)  # samples of an entry start close together
            self.network = residual_mlp(width, blocks, outputs)

    @property
    def space(self) -> Space:
        """The space of the points, not a part of the module: copies of the module share it."""
        return find_space(self.space_name, self.mesh)

    def forward(self, z: Float[Tensor, "n latent"]) -> Float[Tensor, "n d"]:
        """Points for latents z; free in the ambient space if the geometry is euclidean."""
        if self.codebook is not None and self.linear is not None:
            z = self.codebook(z[:, 0].long()) + self.linear(z[:, 1:])
        x: Tensor = self.network(z)
        return x if self.geometry == "euclidean" else self.space.point(x)

    def latent(self, n: int, generator: Generator) -> Float[Tensor, "n latent"]:
        """Sample `n` latents, the index of the codebook entry first, with a generator on any device."""
        device, parts = generator.device, []
        if self.codebook is not None:
            size = self.codebook.num_embeddings
            parts.append(torch.randint(size, (n, 1), generator=generator, device=device))
        parts.append(torch.randn(n, self.latent_dim, generator=generator, device=device))
        return torch.cat(parts, dim=1).to(next(self.parameters()))

    @torch.no_grad()
    def sample(self, n: int, generator: Generator, batch_size: int = 16_384) -> Float[Tensor, "n d"]:
        """Sample `n` points of the space, for either geometry, on the CPU; `batch_size` bounds memory."""
        latents, projx = self.latent(n, generator), self.space.manifold.projx
        device = latents.device
        return in_batches(lambda z: projx(self(z)), latents, batch_size=batch_size, device=device)
