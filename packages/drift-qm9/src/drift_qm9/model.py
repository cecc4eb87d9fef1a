"""The one-step generator of token sequences: a transformer whose noise, or code, takes the place of time."""

from typing import Literal

import torch
from drift_simplex import Codebook, abs_normalize, decode
from einops import rearrange
from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Float, Int64
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from drift_qm9.tokens import LENGTH, LETTERS

Geometry = Literal["spherical", "euclidean"]
Noise = Literal["binary", "gaussian"]
Output = Literal["abs_normalize", "softmax"]

PRESETS: dict[str, dict[str, int]] = {
    "mlp": {"width": 64, "blocks": 0, "heads": 1},
    "small": {"width": 128, "blocks": 4, "heads": 4},
    "base": {"width": 768, "blocks": 12, "heads": 12},
}
"""Sizes: mlp has no attention, small has 1.2 million parameters, base is the published one (92 million)."""

_CODE, _HIDDEN = 64, 512
"""Numbers in the learned vector of a code, and width of the MLP that reads it."""

_LOGIT_STD = 4.0
"""Spread of untrained logits, at which the likeliest letter of a position has probability 0.7 on average."""

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
        self.modulation = _spread(nn.Linear(condition, 6 * width))
        with torch.no_grad():  # the gates, around 1
            self.modulation.bias.view(6, width)[[2, 5]] = 1

    def forward(self, h: Float[Tensor, "n length width"], c: Float[Tensor, "n c"]) -> Tensor:
        """Hidden states after this block."""
        modulation = rearrange(self.modulation(c), "n (six d) -> six n 1 d", six=6)
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = modulation
        h = h + gate * self.attention((1 + scale) * self.norm(h) + shift)
        update: Tensor = mlp_gate * self.mlp((1 + mlp_scale) * self.norm(h) + mlp_shift)
        return h + update

    def attention(self, h: Float[Tensor, "n length width"]) -> Tensor:
        """Self-attention of all positions to all."""
        q, k, v = rearrange(self.qkv(h), "n l (three a d) -> three n a l d", three=3, a=self.heads)
        mixed: Tensor = self.out(rearrange(F.scaled_dot_product_attention(q, k, v), "n a l d -> n l (a d)"))
        return mixed


class MoleculeGenerator(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="drift-qm9",
    tags=["drifting-model"],
    license="mit",
):
    """Transformer from noise [n, latent_dim] to one point per position, [n, length, letters].

    The noise of a sequence is `global_noise` numbers that modulate every block, where DiT has its time, and
    `position_noise` numbers (none is fine) at each position, where DiT has its noisy tokens. They are
    fair signs -1 and 1 (noise "binary") or standard normal ("gaussian"). Between two strings there is no
    point to land on, so a continuous map of Gaussian noise has to spend some of it on each boundary;
    signs leave no boundary. With `codes`, the number of a learned code (`Codebook`) takes the place of the
    global noise, and what an MLP makes of the code enters at every position; the network may then do without
    blocks. Without position noise such a generator knows no more strings than it has codes.

    For network outputs h, a position's point with geometry "spherical" is |h| / ||h|| (output
    "abs_normalize") or sqrt(softmax(h)) ("softmax"), on the positive orthant of the unit sphere; with
    "euclidean", the baseline, it is softmax(h), in R^letters, whatever the output. The most probable
    letters are the sequence (`sample`).

    Untrained, h varies over samples as normal numbers of standard deviation 4: the first outputs lie apart
    from one another and, by softmax, near vertices, as the data do. (Samples that start in one place repel
    one another too evenly to spread, and cover badly for long.) For that, the modulation does not start at
    zero, unlike DiT's.

    With `bf16` the network's matrix products are in bfloat16 on a GPU, unless its weights are float64;
    points always have the weights' dtype. `save_pretrained(folder)` and `from_pretrained(folder)` keep
    weights (safetensors) and arguments (config.json).

    Raises ValueError for an unknown geometry, noise or output, no global noise, too many codes, or a width
    that the heads do not divide.
    """

    def __init__(
        self,
        length: int = LENGTH,
        letters: int = len(LETTERS),
        width: int = PRESETS["small"]["width"],
        blocks: int = PRESETS["small"]["blocks"],
        heads: int = PRESETS["small"]["heads"],
        condition: int = 128,
        global_noise: int = 32,
        position_noise: int = 4,
        noise: Noise = "binary",
        codes: int = 0,
        geometry: Geometry = "spherical",
        output: Output = "abs_normalize",
        bf16: bool = False,
    ) -> None:
        super().__init__()
        _check_choice("geometry", geometry, ("spherical", "euclidean"))
        _check_choice("noise", noise, ("binary", "gaussian"))
        _check_choice("output", output, ("abs_normalize", "softmax"))
        if global_noise < 1 or position_noise < 0:
            needs = "global_noise must be at least 1 and position_noise at least 0"
            raise ValueError(f"{needs}, got {global_noise} and {position_noise}")
        if width % heads:
            raise ValueError(f"{heads} heads do not divide the width {width}")
        self.length, self.position_noise = length, position_noise
        self.global_noise = 1 if codes else global_noise
        self.noise, self.geometry, self.bf16 = noise, geometry, bf16
        self.normalizes = geometry == "spherical" and output == "abs_normalize"
        self.position = nn.Parameter(torch.randn(length, width))
        self.from_noise = nn.Linear(position_noise, width, bias=False) if position_noise else None
        self.codebook = Codebook(codes, _CODE) if codes else None
        self.from_code = (
            nn.Sequential(
                _spread(nn.Linear(_CODE, _HIDDEN), std=2**0.5),
                nn.SiLU(),
                _spread(nn.Linear(_HIDDEN, _HIDDEN), std=2**0.5),
                nn.SiLU(),
                _spread(nn.Linear(_HIDDEN, length * width), std=2**0.5),
            )
            if codes
            else None
        )
        self.condition = nn.Sequential(
            _spread(nn.Linear(_CODE if codes else global_noise, condition), std=2**0.5),
            nn.SiLU(),
            _spread(nn.Linear(condition, condition), std=2**0.5),
            nn.SiLU(),
        )
        self.blocks = nn.ModuleList([Block(width, heads, condition) for _ in range(blocks)])
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = _spread(nn.Linear(condition, 2 * width))
        self.logits = _spread(nn.Linear(width, letters), std=_LOGIT_STD / _MODULATED)

    @property
    def latent_dim(self) -> int:
        """Numbers of noise of one sequence: global first, then those of each position in turn."""
        return self.global_noise + self.length * self.position_noise

    def forward(self, z: Float[Tensor, "n latent"]) -> Float[Tensor, "n length letters"]:
        """Points for latents."""
        with torch.autocast(z.device.type, torch.bfloat16, enabled=self._half(z)):
            logits = self._network(z)
        logits = logits.to(self.position.dtype)
        if self.normalizes:
            return abs_normalize(logits)
        log_p = logits.log_softmax(-1)
        return (log_p / 2).exp() if self.geometry == "spherical" else log_p.exp()

    def _half(self, z: Tensor) -> bool:
        return self.bf16 and z.is_cuda and self.position.dtype == torch.float32

    def _network(self, z: Tensor) -> Tensor:
        h, noise = self.position.expand(len(z), -1, -1), z[:, : self.global_noise]
        if self.codebook is not None and self.from_code is not None:
            noise = self.codebook(noise[:, 0])
            h = h + self.from_code(noise).unflatten(1, (self.length, -1))
        c = self.condition(noise)
        if self.from_noise is not None:
            h = h + self.from_noise(rearrange(z[:, self.global_noise :], "n (l d) -> n l d", l=self.length))
        for block in self.blocks:
            h = block(h, c)
        shift, scale = rearrange(self.modulation(c), "n (two d) -> two n 1 d", two=2)
        logits: Tensor = self.logits((1 + scale) * self.norm(h) + shift)
        return logits

    def latent(self, n: int, generator: Generator) -> Float[Tensor, "n latent"]:
        """Draw `n` latents with a generator of any device."""
        shape, device = (n, self.latent_dim), generator.device
        if self.noise == "gaussian":
            z = torch.randn(shape, generator=generator, device=device)
        else:
            z = 2.0 * torch.randint(2, shape, generator=generator, device=device) - 1
        if self.codebook is not None:
            z[:, 0] = self.codebook.draw(n, generator)
        return z.to(self.position.dtype)

    @torch.no_grad()
    def sample(self, n: int, generator: Generator, batch_size: int = 256) -> Int64[Tensor, "n length"]:
        """Draw the token ids of `n` sequences, on the CPU; `batch_size` bounds memory."""
        latents = self.latent(n, generator).to(self.position.device)
        return torch.cat([decode(self(z)) for z in torch.split(latents, batch_size)]).cpu()


def _spread(layer: nn.Linear, std: float = 1.0) -> nn.Linear:
    """Start a layer with outputs of standard deviation `std` for inputs of mean square 1, and no bias."""
    nn.init.normal_(layer.weight, std=std * layer.in_features**-0.5)
    nn.init.zeros_(layer.bias)
    return layer


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} {value!r} is none of {', '.join(choices)}")
