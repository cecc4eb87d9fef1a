"""The one-step generator of token sequences: an MLP, or a transformer with latents in the place of time."""

from collections.abc import Sequence
from typing import get_args

import torch
from drift_core.training.network import in_batches
from drift_simplex import Codebook, decode_best, to_simplex
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

_ENOUGH = 0.7
"""Probability of a string from which on a candidate is taken without a look at the others."""


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

    With a table of `compositions` (numbers of its rows and of counts; none: (0, 0)) the network is also
    called with the composition of each string (`Composition`), such as its number of tokens, and `sample`
    draws these from the table by `frequencies` where they are not given. `learn_compositions` fills it.

    Outputs become points by `output_points`, and `sample` takes the argmax. Untrained outputs vary over
    samples with standard deviation 4, apart from one another and, by softmax, near vertices, as the data are:
    samples that start in one place repel one another too evenly to spread. Unlike DiT's, the modulation
    therefore does not start at zero.

    With `bf16` the network's matrix products are in bfloat16 on a GPU, unless its weights are float64.
    Points always have the weights' dtype. `save_pretrained(folder)` and `from_pretrained(folder)` keep
    weights (safetensors) and arguments (config.json).

    `sample` draws `best_of` candidates for every sequence, each with latents of its own, and takes the first
    that the network is sure of, or the one that it is surest of (`drift_simplex.decode_best`).

    `notation` is what the tokens are written in, and `to_smiles` reads them.

    Raises ValueError for an unknown geometry, output, notation or kind of latents, no global channels, a
    codebook that is too large or has compositions, a width that the heads do not divide, or no candidates.
    """

    compositions: Int64[Tensor, "rows counts"]
    """Distinct compositions."""
    frequencies: Float[Tensor, " rows"]
    """Relative frequencies of the compositions."""

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
        compositions: Sequence[int] = (0, 0),
        notation: NotationName = "smiles",
        best_of: int = 1,
    ) -> None:
        super().__init__()
        choices = {"geometry": Geometry, "latents": Latents, "output": Output, "notation": NotationName}
        for name, value in zip(choices, (geometry, latents, output, notation), strict=True):
            check_choice(name, value, get_args(choices[name]))
        _check_numbers(global_channels, position_channels, width, heads, best_of)
        if (rows := compositions[0]) and codebook_size:
            raise ValueError("the compositions of codebook entries cannot be given")
        self.length, self.position_channels, self.notation = length, position_channels, notation
        self.best_of = best_of
        self.register_buffer("compositions", torch.zeros(*compositions, dtype=torch.long))
        self.register_buffer("frequencies", torch.zeros(rows))
        self.global_channels = 1 if codebook_size else global_channels
        self.latents, self.geometry, self.output, self.bf16 = latents, geometry, output, bf16
        self.position = nn.Parameter(torch.randn(length, width))
        self.from_latents = nn.Linear(position_channels, width, bias=False) if position_channels else None
        self.codebook = Codebook(codebook_size, _EMBEDDING) if codebook_size else None
        self.from_codebook = _codebook_mlp(mlp_width or _HIDDEN, length * width) if codebook_size else None
        residual = mlp_width > 0 and not codebook_size
        shared = _EMBEDDING if codebook_size else global_channels + compositions[1] * (length - 1)
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
        """Whether it is called with compositions."""
        return len(self.compositions) > 0

    def learn_compositions(self, rows: Int64[Tensor, "n counts"]) -> None:
        """Fill the table with the distinct compositions among rows of data, and their frequencies.

        Raises ValueError if they are not as many as the table has rows.
        """
        distinct, number = torch.unique(rows, dim=0, return_counts=True)
        if distinct.shape != self.compositions.shape:
            shape = tuple(self.compositions.shape)
            raise ValueError(f"the table of compositions is {shape}, the data have {tuple(distinct.shape)}")
        self.compositions.copy_(distinct)
        self.frequencies.copy_(number / len(rows))

    def forward(
        self, z: Float[Tensor, "n latent"], composition: Int64[Tensor, "n counts"] | None = None
    ) -> Float[Tensor, "n length vocab"]:
        """Points for latents and, where they are given, compositions. Raises ValueError for others."""
        if self.conditional != (composition is not None):
            raise ValueError(
                f"the generator takes {'' if self.conditional else 'no '}compositions of strings"
            )
        with bf16_autocast(self.bf16, z, self.position):
            logits = self._network(z, composition)
        return output_points(logits.to(self.position.dtype), self.geometry, self.output)

    def _network(self, z: Tensor, composition: Tensor | None) -> Tensor:
        """Logits."""
        h, shared = self.position.expand(z.shape[0], -1, -1), z[:, : self.global_channels]
        if composition is not None:
            largest = self.length - 2
            each = F.one_hot(composition, largest + 1).to(z).flatten(1)
            shared = torch.cat([shared, (largest + 1) ** 0.5 * each], 1)
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

    def draw_compositions(self, n: int, generator: Generator) -> Int64[Tensor, "n counts"]:
        """Draw `n` compositions by their frequencies, on the CPU."""
        rows = torch.multinomial(self.frequencies.cpu(), n, replacement=True, generator=generator)
        return self.compositions.cpu()[rows]

    @torch.no_grad()
    def sample(
        self,
        n: int,
        generator: Generator,
        compositions: Int64[Tensor, "n counts"] | None = None,
        batch_size: int = 256,
    ) -> Int64[Tensor, "n length"]:
        """Draw the token ids of `n` sequences, on the CPU; `batch_size` bounds memory.

        `compositions` are theirs, where the generator takes any; none: drawn by their frequencies.
        Raises ValueError for counts that no sequence has.
        """
        largest = self.length - 2
        if compositions is not None and not bool(((compositions >= 0) & (compositions <= largest)).all()):
            raise ValueError(f"counts of compositions must lie in [0, {largest}]")
        z = rearrange(self.latent(n * self.best_of, generator), "(n k) c -> n k c", k=self.best_of)
        if self.conditional and compositions is None:
            compositions = self.draw_compositions(n, generator)
        inputs = [z] if compositions is None else [z, compositions]
        rows, device = max(1, batch_size // self.best_of), self.position.device
        return in_batches(self._sample_batch, *inputs, batch_size=rows, device=device)

    def _sample_batch(
        self, z: Float[Tensor, "n best_of latent"], composition: Int64[Tensor, "n counts"] | None = None
    ) -> Int64[Tensor, "n length"]:
        """Tokens of the best candidate of each row."""
        if composition is not None:
            composition = composition.repeat_interleave(self.best_of, 0)
        points = rearrange(self(z.flatten(0, 1), composition), "(n k) l a -> n k l a", k=self.best_of)
        return decode_best(to_simplex(points) if self.geometry == "spherical" else points, _ENOUGH)

    def to_smiles(self, tokens: Int64[Tensor, "n length"]) -> list[str]:
        """SMILES of sampled tokens, molecule or not."""
        return NOTATIONS[self.notation].to_smiles(tokens)


def _check_numbers(
    global_channels: int, position_channels: int, width: int, heads: int, best_of: int
) -> None:
    """Raise ValueError for numbers that make no generator."""
    if global_channels < 1 or position_channels < 0:
        needs = "global_channels must be at least 1 and position_channels at least 0"
        raise ValueError(f"{needs}, got {global_channels} and {position_channels}")
    if width % heads:
        raise ValueError(f"{heads} heads do not divide the width {width}")
    if best_of < 1:
        raise ValueError(f"best_of must be at least 1, got {best_of}")


def _codebook_mlp(hidden: int, width: int) -> nn.Sequential:
    """MLP that reads codebook entries."""
    layers = silu_mlp(_EMBEDDING, hidden, hidden)
    return nn.Sequential(*layers, init_layer(nn.Linear(hidden, width), std=2**0.5))
