"""The one-step generator of token sequences: an MLP, or a transformer with latents in the place of time."""

from typing import get_args

import torch
from drift_core.training.network import in_batches
from drift_simplex import Codebook, decode
from drift_simplex.generator import (
    LOGIT_STD,
    Geometry,
    Latents,
    Output,
    ResidualMLP,
    bf16_autocast,
    check_choice,
    draw_latents,
    init_layer,
    output_points,
    silu_mlp,
)
from einops import rearrange
from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Float, Int64
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from drift_qm9.notation import NOTATIONS, NotationName
from drift_qm9.tokens import LENGTH, VOCABULARY

PRESETS: dict[str, dict[str, int]] = {
    "mlp-small": {"width": 64, "blocks": 0, "heads": 1, "mlp_width": 256, "mlp_blocks": 4},
    "mlp": {"width": 64, "blocks": 0, "heads": 1, "mlp_width": 512, "mlp_blocks": 4},
    "mlp-large": {"width": 64, "blocks": 0, "heads": 1, "mlp_width": 2048, "mlp_blocks": 6},
    "small": {"width": 128, "blocks": 4, "heads": 4},
    "base": {"width": 768, "blocks": 12, "heads": 12},
}
"""Sizes of MLPs (1.1, 3.2 and 55 million parameters for strings of 32 letters), and of transformers (1.2
million, and 92 million as published)."""

_EMBEDDING, _HIDDEN = 64, 512
"""Width of the codebook entries, and of the MLP that reads them."""

_MODULATED = 1.3
"""Root mean square of what an untrained modulation makes of normalised hidden states."""


class Block(nn.Module):
    """Transformer block of DiT (Peebles and Xie 2023), pre-norm, modulated by a condition vector.

    Each of attention and MLP sees (1 + scale) * layernorm(h) + shift, and its output is added to h times
    a gate; shift, scale and gate are linear in the condition.
    """

    def __init__(self, width: int, heads: int, condition: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width))
        self.modulation = init_layer(nn.Linear(condition, 6 * width))
        with torch.no_grad():  # the gates, around 1
            self.modulation.bias.view(6, width)[[2, 5]] = 1

    def forward(self, h: Float[Tensor, "n length width"], c: Float[Tensor, "n c"]) -> Tensor:
        """Hidden states after this block."""
        modulation = rearrange(self.modulation(c), "n (six d) -> six n 1 d", six=6)
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = modulation
        h = h + gate * self.attention((1 + scale) * self.norm(h) + shift)
        return h + mlp_gate * self.mlp((1 + mlp_scale) * self.norm(h) + mlp_shift)

    def attention(self, h: Float[Tensor, "n length width"]) -> Tensor:
        """Self-attention of all positions to all."""
        q, k, v = rearrange(self.qkv(h), "n l (three a d) -> three n a l d", three=3, a=self.heads)
        return self.out(rearrange(F.scaled_dot_product_attention(q, k, v), "n a l d -> n l (a d)"))


class MoleculeGenerator(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="drift-qm9",
    tags=["drifting-model"],
    license="mit",
    paper_url="https://arxiv.org/abs/2605.10727",
):
    """Network from latents [n, latent_dim] to one point per position, [n, length, vocab_size].

    With `mlp_width` > 0 a `ResidualMLP` maps `global_channels` latent channels (`draw_latents`) to hidden
    states of all positions, from which points follow position by position.

    Otherwise it is a transformer, whose every block the global channels modulate, where DiT has its time.
    `position_channels` (0 for none) enter at each position, where DiT has its noisy tokens.

    With a codebook (`codebook_size` > 0), the index of a learned entry (`Codebook`) replaces the global
    channels. An MLP of the entry, of two layers of `mlp_width`, is then added at every position, and the
    network may have no blocks.
    Without position channels such a generator makes at most `codebook_size` different strings.

    With `given_length` the network is also called with the numbers of tokens [n] of the strings, and `sample`
    draws them by the weights `length_weights` where they are not given: zero until they are set.

    Outputs become points by `output_points`, and `sample` takes the argmax. Untrained outputs vary over
    samples with standard deviation 4, apart from one another and, by softmax, near vertices, as the data are:
    samples that start in one place repel one another too evenly to spread. Unlike DiT's, the modulation
    therefore does not start at zero.

    With `bf16` the network's matrix products are in bfloat16 on a GPU, unless its weights are float64.
    Points always have the weights' dtype. `save_pretrained(folder)` and `from_pretrained(folder)` keep
    weights (safetensors) and arguments (config.json).

    `notation` is what the tokens are written in, and `to_smiles` reads them.

    Raises ValueError for an unknown geometry, output, notation or kind of latents, no global channels, a
    codebook that is too large or has given lengths, or a width that the heads do not divide.
    """

    length_weights: Float[Tensor, " lengths"]
    """Relative frequencies of strings of 0, 1, ... tokens."""

    def __init__(
        self,
        length: int = LENGTH,
        vocab_size: int = len(VOCABULARY),
        width: int = PRESETS["small"]["width"],
        blocks: int = PRESETS["small"]["blocks"],
        heads: int = PRESETS["small"]["heads"],
        condition: int = 128,
        global_channels: int = 32,
        position_channels: int = 4,
        latents: Latents = "bernoulli",
        codebook_size: int = 0,
        geometry: Geometry = "spherical",
        output: Output = "abs_normalize",
        bf16: bool = False,
        mlp_width: int = 0,
        mlp_blocks: int = 4,
        given_length: bool = False,
        notation: NotationName = "smiles",
    ) -> None:
        super().__init__()
        check_choice("geometry", geometry, get_args(Geometry))
        check_choice("latents", latents, get_args(Latents))
        check_choice("output", output, get_args(Output))
        check_choice("notation", notation, get_args(NotationName))
        if global_channels < 1 or position_channels < 0:
            needs = "global_channels must be at least 1 and position_channels at least 0"
            raise ValueError(f"{needs}, got {global_channels} and {position_channels}")
        if width % heads:
            raise ValueError(f"{heads} heads do not divide the width {width}")
        if given_length and codebook_size:
            raise ValueError("the lengths of codebook entries cannot be given")
        self.length, self.position_channels, self.notation = length, position_channels, notation
        self.register_buffer("length_weights", torch.zeros(given_length * (length - 1)))
        self.global_channels = 1 if codebook_size else global_channels
        self.latents, self.geometry, self.output, self.bf16 = latents, geometry, output, bf16
        self.position = nn.Parameter(torch.randn(length, width))
        self.from_latents = nn.Linear(position_channels, width, bias=False) if position_channels else None
        self.codebook = Codebook(codebook_size, _EMBEDDING) if codebook_size else None
        self.from_codebook = _codebook_mlp(mlp_width or _HIDDEN, length * width) if codebook_size else None
        residual = mlp_width > 0 and not codebook_size
        shared = _EMBEDDING if codebook_size else global_channels + len(self.length_weights)
        self.mlp = ResidualMLP(shared, mlp_width, mlp_blocks, length * width) if residual else None
        modulated = blocks > 0 or not residual
        self.condition = silu_mlp(shared, condition, condition) if modulated else None
        self.blocks = nn.ModuleList([Block(width, heads, condition) for _ in range(blocks)])
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = init_layer(nn.Linear(condition, 2 * width)) if modulated else None
        std = LOGIT_STD / _MODULATED if modulated else LOGIT_STD
        self.logits = init_layer(nn.Linear(width, vocab_size), std=std)

    @property
    def latent_dim(self) -> int:
        """Numbers in one latent: the global channels or the codebook index, then each position's channels."""
        return self.global_channels + self.length * self.position_channels

    @property
    def conditional(self) -> bool:
        """Whether it is called with lengths."""
        return len(self.length_weights) > 0

    def forward(
        self, z: Float[Tensor, "n latent"], lengths: Int64[Tensor, " n"] | None = None
    ) -> Float[Tensor, "n length vocab"]:
        """Points for latents and, with `given_length`, numbers of tokens. Raises ValueError for others."""
        if self.conditional != (lengths is not None):
            raise ValueError(f"the generator takes {'' if self.conditional else 'no '}lengths of strings")
        with bf16_autocast(self.bf16, z, self.position):
            logits = self._network(z, lengths)
        return output_points(logits.to(self.position.dtype), self.geometry, self.output)

    def _network(self, z: Tensor, lengths: Tensor | None) -> Tensor:
        """Logits."""
        h, shared = self.position.expand(z.shape[0], -1, -1), z[:, : self.global_channels]
        if lengths is not None:
            count = len(self.length_weights)
            shared = torch.cat([shared, count**0.5 * F.one_hot(lengths, count).to(z)], 1)
        if self.codebook is not None and self.from_codebook is not None:
            shared = self.codebook(shared[:, 0])
            h = h + self.from_codebook(shared).unflatten(1, (self.length, -1))
        if self.mlp is not None:
            h = h + self.mlp(shared).unflatten(1, (self.length, -1))
        if self.from_latents is not None:
            local = rearrange(z[:, self.global_channels :], "n (l d) -> n l d", l=self.length)
            h = h + self.from_latents(local)
        if self.condition is None or self.modulation is None:
            return self.logits(self.norm(h))
        c = self.condition(shared)
        for block in self.blocks:
            h = block(h, c)
        shift, scale = rearrange(self.modulation(c), "n (two d) -> two n 1 d", two=2)
        return self.logits((1 + scale) * self.norm(h) + shift)

    def latent(self, n: int, generator: Generator) -> Float[Tensor, "n latent"]:
        """Draw `n` latents with a generator of any device."""
        z = draw_latents((n, self.latent_dim), self.latents, generator)
        if self.codebook is not None:
            z[:, 0] = self.codebook.draw(n, generator)
        return z.to(self.position.dtype)

    def draw_lengths(self, n: int, generator: Generator) -> Int64[Tensor, " n"]:
        """Draw `n` numbers of tokens by their weights, on the CPU."""
        return torch.multinomial(self.length_weights.cpu(), n, replacement=True, generator=generator)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        generator: Generator,
        lengths: Int64[Tensor, " n"] | None = None,
        batch_size: int = 256,
    ) -> Int64[Tensor, "n length"]:
        """Draw the token ids of `n` sequences, on the CPU; `batch_size` bounds memory.

        With `given_length`, `lengths` are their numbers of tokens.
        """
        z, device = self.latent(n, generator), self.position.device
        if self.conditional and lengths is None:
            lengths = self.draw_lengths(n, generator)
        inputs = [z] if lengths is None else [z, lengths]
        return in_batches(lambda *part: decode(self(*part)), *inputs, batch_size=batch_size, device=device)

    def to_smiles(self, tokens: Int64[Tensor, "n length"]) -> list[str]:
        """SMILES of sampled tokens, molecule or not."""
        return NOTATIONS[self.notation].to_smiles(tokens)


def _codebook_mlp(hidden: int, width: int) -> nn.Sequential:
    """MLP that reads codebook entries."""
    layers = silu_mlp(_EMBEDDING, hidden, hidden)
    return nn.Sequential(*layers, init_layer(nn.Linear(hidden, width), std=2**0.5))
