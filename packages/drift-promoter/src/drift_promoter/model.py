"""The one-step generator of DNA: a dilated CNN from latents and signal to one point per position."""

from typing import Literal, get_args

import torch
from drift_core.training.network import in_batches
from drift_simplex import abs_normalize, decode, sample_tokens, to_sphere
from drift_simplex.generator import (
    LOGIT_STD,
    Geometry,
    Latents,
    Output,
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

from drift_promoter.clusters import FEATURES, ConditionClusters
from drift_promoter.crops import Crops
from drift_promoter.layers import Block, Modulation, convolution

Decoding = Literal["argmax", "sampled"]

PRESETS: dict[str, dict[str, int]] = {
    "small": {"width": 64, "blocks": 10},
    "base": {"width": 256, "blocks": 20},
}
"""Sizes: base is the published one; at length 1,024 small has 0.5 million parameters, base 15."""

DILATIONS = (1, 1, 4, 16, 64)
"""Steps between the taps of the blocks' convolutions, repeated."""

VOCAB_SIZE, TRACKS = 4, 2
"""Letters of DNA, and all tracks of the signal."""

_CHOICES = {"geometry": Geometry, "latents": Latents, "output": Output, "decoding": Decoding}

_POSITION_STD = 0.02

_CROP = 8
"""Base pairs in the middle of a codebook entry, around which the signal is looked at."""

_CODEBOOK_GAIN = 25.0
"""How many times as far as other weights codebook entries move with an update of AdamW."""


class PromoterGenerator(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="drift-promoter",
    tags=["drifting-model"],
    license="mit",
    paper_url="https://arxiv.org/abs/2605.10727",
):
    """Dilated CNN from latents [n, latent_dim] and signal [n, length, tracks] to points [n, length, 4].

    The network is that of the benchmark (Avdeyev et al. 2023) without time: a convolution of 9 taps, residual
    blocks (`Block`), and two pointwise layers, before which hidden states are normalised once more, so that
    outputs do not depend on the depth. With `position`, a learnt vector for each position is added after the
    first convolution, because promoters have a place (the TSS is in the middle).

    The `position_channels` of the latents (`draw_latents`) enter at each position, as the published noise
    does. The `global_channels` modulate every block, for what concerns the whole sequence. With `condition`
    the signal, log10(1 + x), enters beside the position channels: both tracks or, with `tracks=1`, that of
    the same strand alone.

    With `codebook_size`, a sequence starts from entries of a learnt codebook of that size, one at random for
    each `codebook_span` positions. The outputs of an entry, random at first, are part of the network's input
    (as points) and are added to its outputs, which start at zero. What recurs is kept rather than computed.
    With `codebook_clusters` that many clusters of conditions share the entries evenly: an entry is drawn from
    those of the cluster that the signal around it belongs to. The centres are zero until they are set.

    Outputs become points by `output_points`. A sequence is the most likely letter of each position (decoding
    "argmax") or one sampled from the distribution that the point is ("sampled"). Untrained outputs lie near
    vertices, as the data do, and apart from one another: samples that start in one place repel one another
    too evenly to spread. For that, the modulation does not start at zero.

    With `bf16` the network's matrix products are in bfloat16 on a GPU, unless its weights are float64;
    points always have the weights' dtype.

    Raises ValueError for arguments that are unknown or out of range, a span of codebook entries that does not
    divide the length, and clusters of conditions without entries or conditions.
    """

    def __init__(
        self,
        length: int = 1024,
        width: int = PRESETS["small"]["width"],
        blocks: int = PRESETS["small"]["blocks"],
        condition: bool = True,
        global_channels: int = 32,
        position_channels: int = 4,
        latents: Latents = "bernoulli",
        geometry: Geometry = "spherical",
        output: Output = "abs_normalize",
        decoding: Decoding = "argmax",
        position: bool = True,
        codebook_size: int = 0,
        codebook_span: int = 64,
        codebook_clusters: int = 0,
        bf16: bool = False,
        tracks: int = TRACKS,
    ) -> None:
        super().__init__()
        given = {"geometry": geometry, "latents": latents, "output": output, "decoding": decoding}
        for name, value in given.items():
            check_choice(name, value, get_args(_CHOICES[name]))
        _check_channels(tracks, global_channels, position_channels)
        _check_codebook(codebook_size, codebook_span, length)
        _check_clusters(codebook_clusters, codebook_size, condition)
        self.length, self.conditional, self.bf16, self.decoding = length, condition, bf16, decoding
        self.tracks = tracks if condition else 0
        self.global_channels, self.position_channels = global_channels, position_channels
        self.latents, self.geometry, self.output = latents, geometry, output
        self.slots = length // codebook_span if codebook_size else 0
        self.entries = codebook_size // max(1, codebook_clusters)
        self.codebook = nn.Embedding(codebook_size, codebook_span * VOCAB_SIZE) if codebook_size else None
        self.clusters = _unset_clusters(codebook_clusters, length, self.tracks)
        self.input = convolution(position_channels + self.tracks + VOCAB_SIZE * bool(codebook_size), width)
        self.position = nn.Parameter(_POSITION_STD * torch.randn(width, length)) if position else None
        self.condition = silu_mlp(global_channels, width, width)
        dilations = [DILATIONS[i % len(DILATIONS)] for i in range(blocks)]
        self.blocks = nn.ModuleList([Block(width, dilation, width) for dilation in dilations])
        self.modulation = Modulation(width, width)
        self.hidden = init_layer(nn.Conv1d(width, width, 1))
        normalizes = geometry == "spherical" and output == "abs_normalize"
        self.logits = init_layer(nn.Conv1d(width, VOCAB_SIZE, 1), std=1.0 if normalizes else LOGIT_STD)
        self._start()

    @torch.no_grad()
    def _start(self) -> None:
        """Centre the weights of the outputs; with a codebook they start at zero."""
        # GELU's mean is not 0, and would favour one letter everywhere.
        self.logits.weight -= self.logits.weight.mean(1, keepdim=True)
        if self.codebook is not None:
            self.codebook.weight /= _CODEBOOK_GAIN
            self.logits.weight.zero_()

    @property
    def latent_dim(self) -> int:
        """Latents of one sequence: global channels, those of each position in turn, then codebook entries."""
        return self.global_channels + self.length * self.position_channels + self.slots

    def forward(
        self, z: Float[Tensor, "n latent"], signal: Float[Tensor, "n length tracks"] | None = None
    ) -> Float[Tensor, "n length 4"]:
        """Points for latents and, if the generator is conditional, signals; ValueError for other signals."""
        self._check_signal(signal)
        with bf16_autocast(self.bf16, z, self.logits.weight):
            logits = self._network(z, signal)
        logits = rearrange(logits, "n k l -> n l k").to(self.logits.weight.dtype)
        return output_points(logits, self.geometry, self.output)

    def _check_signal(self, signal: Tensor | None) -> None:
        if self.conditional and signal is None:
            raise ValueError("the generator is conditional: it needs a signal")
        if not self.conditional and signal is not None:
            raise ValueError("the generator is unconditional: it takes no signal")
        if signal is not None and signal.shape[-1] != self.tracks:
            raise ValueError(f"the generator takes signals of {self.tracks} tracks, got {signal.shape[-1]}")

    def _network(self, z: Tensor, signal: Tensor | None) -> Tensor:
        c = self.condition(z[:, : self.global_channels])
        local = z[:, self.global_channels : z.shape[1] - self.slots]
        inputs = [rearrange(local, "n (l d) -> n d l", l=self.length)]
        if signal is not None:
            inputs.append(rearrange(signal, "n l t -> n t l"))
        entries = self._entries(z, signal)
        if entries is not None:
            inputs.append(rearrange(abs_normalize(entries), "n l k -> n k l"))
        h = self.input(torch.cat(inputs, dim=1))
        if self.position is not None:
            h = h + self.position
        for block in self.blocks:
            h = block(h, c)
        logits: Tensor = self.logits(F.gelu(self.hidden(self.modulation(h, c))))
        return logits if entries is None else logits + rearrange(entries, "n l k -> n k l")

    def _entries(self, z: Tensor, signal: Tensor | None) -> Float[Tensor, "n length 4"] | None:
        """Outputs of the codebook entries that latents name, if there is a codebook."""
        if self.codebook is None:
            return None
        index = z[:, z.shape[1] - self.slots :].long()
        if self.clusters is not None and signal is not None:
            span = self.length // self.slots
            middles = span * torch.arange(self.slots, device=z.device) + (span - _CROP) // 2
            index = index + self.entries * self.clusters.assign(signal, middles)
        entries = self.codebook(index)
        return _CODEBOOK_GAIN * rearrange(entries, "n slots (l k) -> n (slots l) k", k=VOCAB_SIZE)

    def latent(self, n: int, generator: Generator) -> Float[Tensor, "n latent"]:
        """Draw `n` latents with a generator of any device."""
        device, dtype = generator.device, self.logits.weight.dtype
        channels = draw_latents((n, self.latent_dim - self.slots), self.latents, generator, dtype)
        if self.codebook is None:
            return channels
        entries = torch.randint(self.entries, (n, self.slots), generator=generator, device=device)
        return torch.cat([channels, entries.to(dtype)], 1)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        generator: Generator,
        signal: Float[Tensor, "n length tracks"] | None = None,
        batch_size: int = 16,
    ) -> Int64[Tensor, "n length"]:
        """Draw `n` sequences, of given signals if the generator is conditional, as letters 0..3 on the CPU.

        `batch_size` bounds memory; hidden states of 16 sequences stay in a CPU's cache. Raises ValueError
        if there are not as many signals as sequences.
        """
        self._check_signal(signal)
        if signal is not None and len(signal) != n:
            raise ValueError(f"cannot draw {n} samples of {len(signal)} signals")
        given = [] if signal is None else [signal.to(self.logits.weight.dtype)]

        def draw(z: Tensor, *signals: Tensor) -> Tensor:
            return self._read(self(z, *signals), generator)

        device = self.logits.weight.device
        return in_batches(draw, self.latent(n, generator), *given, batch_size=batch_size, device=device)

    def _read(self, x: Tensor, generator: Generator) -> Tensor:
        if self.decoding == "argmax":
            return decode(x)
        return sample_tokens(x if self.geometry == "spherical" else to_sphere(x), generator)


def _check_channels(tracks: int, global_channels: int, position_channels: int) -> None:
    if not 1 <= tracks <= TRACKS:
        raise ValueError(f"tracks must be 1 or {TRACKS}, got {tracks}")
    if position_channels < 1 or global_channels < 1:
        needs = "global_channels and position_channels must be at least 1"
        raise ValueError(f"{needs}, got {global_channels} and {position_channels}")


def _check_codebook(size: int, span: int, length: int) -> None:
    if size < 0 or span < 1 or (size and length % span):
        raise ValueError(f"{size} codebook entries of {span} positions do not make up a length of {length}")


def _check_clusters(clusters: int, size: int, conditional: bool) -> None:
    if clusters < 0 or (clusters and not conditional) or size < clusters:
        raise ValueError(f"{clusters} clusters of conditions cannot share {size} codebook entries")


def _unset_clusters(count: int, length: int, tracks: int) -> ConditionClusters | None:
    if not count:
        return None
    return ConditionClusters(torch.zeros(count, tracks * FEATURES), Crops(length, _CROP), persistent=True)
