"""The one-step generator of DNA: a dilated CNN from noise and signal to one point per position."""

from typing import Literal, TypeVar

import torch
from drift_simplex import abs_normalize, decode, sample_tokens, to_sphere
from einops import rearrange
from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Float, Int64
from torch import Generator, Tensor, nn
from torch.nn import functional as F

Geometry = Literal["spherical", "euclidean"]
Noise = Literal["binary", "gaussian"]
Output = Literal["abs_normalize", "softmax"]
Readout = Literal["likeliest", "drawn"]

Layer = TypeVar("Layer", nn.Linear, nn.Conv1d)

PRESETS: dict[str, dict[str, int]] = {
    "small": {"width": 64, "blocks": 10},
    "base": {"width": 256, "blocks": 20},
}
"""Sizes: base is the published one; at length 1,024 small has 0.5 million parameters, base 15."""

DILATIONS = (1, 1, 4, 16, 64)
"""Steps between the taps of the blocks' convolutions, repeated."""

LETTERS, TRACKS, TAPS = 4, 2, 9
"""Letters of DNA, all tracks of the signal, and positions that a convolution sees."""

_LOGIT_STD = 4.0
"""Spread of untrained logits, at which the likeliest letter of a position has probability 0.7 on average."""

_MODULATION_STD = 0.5
"""Spread of untrained modulations: they shift the composition of a whole sequence, and few letters do."""

_POSITION_STD = 0.02

_WORD_GAIN = 25.0
"""How many times as far as other weights the outputs of words move with an update of AdamW."""


class Block(nn.Module):
    """h + SiLU(conv((1 + scale) * norm(h) + shift)), with a dilated convolution of 9 taps.

    The norm is over all channels and positions of a sequence; shift and scale of each channel are
    linear in a condition vector.
    """

    def __init__(self, width: int, dilation: int, condition: int) -> None:
        super().__init__()
        self.modulation = _Modulation(width, condition)
        self.conv = _convolution(width, width, dilation)

    def forward(self, h: Float[Tensor, "n width length"], c: Float[Tensor, "n c"]) -> Tensor:
        """Hidden states after this block."""
        update: Tensor = F.silu(self.conv(self.modulation(h, c)))
        return h + update


class PromoterGenerator(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="drift-promoter",
    tags=["drifting-model"],
    license="mit",
):
    """Dilated CNN from noise [n, latent_dim] and signal [n, length, tracks] to points [n, length, 4].

    The network is that of the benchmark (Avdeyev et al. 2023) without time: a convolution of 9 taps, residual
    blocks (`Block`) of dilations 1, 1, 4, 16, 64 again and again, and two pointwise layers with a GELU
    between. Beyond it, hidden states are normalised once more before those, so that outputs do not
    depend on the depth; with `position`, a learnt vector for each position is added after the first
    convolution, because promoters have a place (the TSS is in the middle); and of the noise of a sequence
    only `position_noise` numbers at each position enter as the published noise does. The other
    `global_noise` numbers modulate every block: what concerns the whole sequence need not be agreed on
    from one position to the next.

    Noise is fair signs -1 and 1 ("binary") or standard normal ("gaussian"). Between two sequences there is no
    point to land on, so a continuous map of Gaussian noise has to spend some of it on each boundary; signs
    leave no boundary.

    With `condition` the signal, log10(1 + x), enters beside the noise of its positions: both tracks or, with
    `tracks=1`, that of the same strand alone.

    With `words`, a sequence starts from words that are drawn at random, one for each `word_length`
    positions, out of a learnt vocabulary of that many. Their four outputs at every position, random at first,
    are part of the network's input (as folded points) and are added to its outputs, which start at zero.
    Noise then says which word, and the network how they join: recurring sequence, such as repeats of
    hundreds of letters, is kept in a vocabulary rather than computed.

    For network outputs h, a position's point with geometry "spherical" is |h| / ||h|| (output
    "abs_normalize") or sqrt(softmax(h)) ("softmax"), on the positive orthant of the unit
    sphere; with "euclidean", the baseline, it is softmax(h), in R^4, whatever the output. The sequence
    (`sample`) is the likeliest letter of each position or, with the readout "drawn", one that is drawn from
    the distribution that the point is.

    Untrained outputs lie near vertices, as the data do, and apart from one another: neither two samples
    nor two positions have more letters in common than random DNA has, or hardly more. (Samples that start
    in one place repel one another too evenly to spread, and cover badly for long.) For that, the
    modulation does not start at zero.

    With `bf16` the network's matrix products are in bfloat16 on a GPU, unless its weights are float64;
    points always have the weights' dtype. `save_pretrained(folder)` and `from_pretrained(folder)` keep
    weights (safetensors) and arguments (config.json).

    Raises ValueError for an unknown geometry, noise, output or readout, for tracks that are not 1 or 2,
    without noise of the sequence or of the positions, and for words whose length does not divide that of
    the sequence.
    """

    def __init__(
        self,
        length: int = 1024,
        width: int = PRESETS["small"]["width"],
        blocks: int = PRESETS["small"]["blocks"],
        condition: bool = True,
        global_noise: int = 32,
        position_noise: int = 4,
        noise: Noise = "binary",
        geometry: Geometry = "spherical",
        output: Output = "abs_normalize",
        readout: Readout = "likeliest",
        position: bool = True,
        words: int = 0,
        word_length: int = 64,
        bf16: bool = False,
        tracks: int = TRACKS,
    ) -> None:
        super().__init__()
        _check_choice("geometry", geometry, ("spherical", "euclidean"))
        _check_choice("noise", noise, ("binary", "gaussian"))
        _check_choice("output", output, ("abs_normalize", "softmax"))
        _check_choice("readout", readout, ("likeliest", "drawn"))
        if not 1 <= tracks <= TRACKS:
            raise ValueError(f"tracks must be 1 or {TRACKS}, got {tracks}")
        if position_noise < 1 or global_noise < 1:
            needs = "global_noise and position_noise must be at least 1"
            raise ValueError(f"{needs}, got {global_noise} and {position_noise}")
        if words < 0 or word_length < 1 or (words and length % word_length):
            raise ValueError(f"{words} words of {word_length} positions do not make up a length of {length}")
        self.length, self.conditional, self.bf16, self.readout = length, condition, bf16, readout
        self.tracks = tracks if condition else 0
        self.global_noise, self.position_noise, self.noise = global_noise, position_noise, noise
        self.geometry, self.normalizes = geometry, geometry == "spherical" and output == "abs_normalize"
        self.places = length // word_length if words else 0
        self.words = nn.Embedding(words, word_length * LETTERS) if words else None
        self.input = _convolution(position_noise + self.tracks + LETTERS * bool(words), width)
        self.position = nn.Parameter(_POSITION_STD * torch.randn(width, length)) if position else None
        self.condition = nn.Sequential(
            _spread(nn.Linear(global_noise, width), std=2**0.5),
            nn.SiLU(),
            _spread(nn.Linear(width, width), std=2**0.5),
            nn.SiLU(),
        )
        dilations = [DILATIONS[i % len(DILATIONS)] for i in range(blocks)]
        self.blocks = nn.ModuleList([Block(width, dilation, width) for dilation in dilations])
        self.modulation = _Modulation(width, width)
        self.hidden = _spread(nn.Conv1d(width, width, 1))
        self.logits = _spread(nn.Conv1d(width, LETTERS, 1), std=1.0 if self.normalizes else _LOGIT_STD)
        with torch.no_grad():  # GELU's mean is not 0, and would favour one letter everywhere
            self.logits.weight -= self.logits.weight.mean(1, keepdim=True)
            if self.words is not None:
                self.words.weight /= _WORD_GAIN
                self.logits.weight.zero_()

    @property
    def latent_dim(self) -> int:
        """Numbers of noise of one sequence: global first, those of each position in turn, then of words."""
        return self.global_noise + self.length * self.position_noise + self.places

    def forward(
        self, z: Float[Tensor, "n latent"], signal: Float[Tensor, "n length tracks"] | None = None
    ) -> Float[Tensor, "n length 4"]:
        """Points for latents and, if the generator is conditional, signals.

        Raises ValueError if a conditional generator gets no signal or one of other tracks, or another
        generator gets one.
        """
        self._check_signal(signal)
        with torch.autocast(z.device.type, torch.bfloat16, enabled=self._half(z)):
            logits = self._network(z, signal)
        logits = rearrange(logits, "n k l -> n l k").to(self.logits.weight.dtype)
        if self.normalizes:
            return abs_normalize(logits)
        log_p = logits.log_softmax(-1)
        return (log_p / 2).exp() if self.geometry == "spherical" else log_p.exp()

    def _check_signal(self, signal: Tensor | None) -> None:
        if self.conditional and signal is None:
            raise ValueError("the generator is conditional: it needs a signal")
        if not self.conditional and signal is not None:
            raise ValueError("the generator is unconditional: it takes no signal")
        if signal is not None and signal.shape[-1] != self.tracks:
            raise ValueError(f"the generator takes signals of {self.tracks} tracks, got {signal.shape[-1]}")

    def _half(self, z: Tensor) -> bool:
        return self.bf16 and z.is_cuda and self.logits.weight.dtype == torch.float32

    def _network(self, z: Tensor, signal: Tensor | None) -> Tensor:
        c = self.condition(z[:, : self.global_noise])
        noise = z[:, self.global_noise : z.shape[1] - self.places]
        inputs = [rearrange(noise, "n (l d) -> n d l", l=self.length)]
        if signal is not None:
            inputs.append(rearrange(signal, "n l t -> n t l"))
        if self.words is not None:
            drawn = self.words(z[:, z.shape[1] - self.places :].long())
            spelt = _WORD_GAIN * rearrange(drawn, "n places (l k) -> n (places l) k", k=LETTERS)
            inputs.append(rearrange(abs_normalize(spelt), "n l k -> n k l"))
        h = self.input(torch.cat(inputs, dim=1))
        if self.position is not None:
            h = h + self.position
        for block in self.blocks:
            h = block(h, c)
        logits: Tensor = self.logits(F.gelu(self.hidden(self.modulation(h, c))))
        return logits if self.words is None else logits + rearrange(spelt, "n l k -> n k l")

    def latent(self, n: int, generator: Generator) -> Float[Tensor, "n latent"]:
        """Draw `n` latents with a generator of any device."""
        shape, device, dtype = (n, self.latent_dim - self.places), generator.device, self.logits.weight.dtype
        if self.noise == "gaussian":
            noise = torch.randn(shape, generator=generator, device=device).to(dtype)
        else:
            bits = torch.randint(2, shape, generator=generator, device=device, dtype=torch.int8)
            noise = bits.to(dtype) * 2 - 1
        if self.words is None:
            return noise
        places, words = (n, self.places), self.words.num_embeddings
        return torch.cat(
            [noise, torch.randint(words, places, generator=generator, device=device).to(dtype)], 1
        )

    @torch.no_grad()
    def sample(
        self,
        n: int,
        generator: Generator,
        signal: Float[Tensor, "n length tracks"] | None = None,
        batch_size: int = 64,
    ) -> Int64[Tensor, "n length"]:
        """Draw `n` sequences, of given signals if the generator is conditional, as letters 0..3 on the CPU.

        `batch_size` bounds memory. Raises ValueError if there are not as many signals as sequences.
        """
        self._check_signal(signal)
        if signal is not None and len(signal) != n:
            raise ValueError(f"cannot draw {n} samples of {len(signal)} signals")
        latents, tokens = self.latent(n, generator), []
        for rows in torch.split(torch.arange(n), batch_size):
            z = latents[rows.to(latents.device)].to(self.logits.weight.device)
            x = self(z) if signal is None else self(z, signal[rows.to(signal.device)].to(z))
            tokens.append(self._read(x, generator).cpu())
        return torch.cat(tokens)

    def _read(self, x: Tensor, generator: Generator) -> Tensor:
        if self.readout == "likeliest":
            return decode(x)
        return sample_tokens(x if self.geometry == "spherical" else to_sphere(x), generator)


class _Modulation(nn.Module):
    """(1 + scale) * norm(h) + shift; the norm has one group, as published."""

    def __init__(self, width: int, condition: int) -> None:
        super().__init__()
        self.linear = _spread(nn.Linear(condition, 2 * width), std=_MODULATION_STD)

    def forward(self, h: Float[Tensor, "n width length"], c: Float[Tensor, "n c"]) -> Tensor:
        shift, scale = rearrange(self.linear(c), "n (two d) -> two n d 1", two=2)
        return (1 + scale) * F.group_norm(h, 1) + shift


def _convolution(channels: int, width: int, dilation: int = 1) -> nn.Conv1d:
    padding = TAPS // 2 * dilation
    return _spread(nn.Conv1d(channels, width, TAPS, padding=padding, dilation=dilation))


def _spread(layer: Layer, std: float = 1.0) -> Layer:
    """Start a layer with outputs of standard deviation `std` for inputs of mean square 1, and no bias."""
    nn.init.normal_(layer.weight, std=std * layer.weight[0].numel() ** -0.5)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} {value!r} is none of {', '.join(choices)}")
