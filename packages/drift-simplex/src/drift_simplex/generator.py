"""Parts shared by generators of sequences: initial weights, latents, output points and precision."""

from itertools import pairwise
from typing import Literal, TypeVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from drift_simplex.geometry import abs_normalize

Geometry = Literal["spherical", "euclidean"]
Latents = Literal["bernoulli", "gaussian"]
Output = Literal["abs_normalize", "softmax"]

Layer = TypeVar("Layer", nn.Linear, nn.Conv1d)

LOGIT_STD = 4.0
"""Standard deviation of untrained logits: the argmax of a position has probability 0.7 on average."""


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise ValueError unless a value is one of the choices."""
    if value not in choices:
        raise ValueError(f"{name} {value!r} is none of {', '.join(choices)}")


def init_layer(layer: Layer, std: float = 1.0) -> Layer:
    """Initialise a layer so that inputs of mean square 1 give outputs of standard deviation `std`.

    The bias is zero.
    """
    nn.init.normal_(layer.weight, std=std * layer.weight[0].numel() ** -0.5)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def silu_mlp(*widths: int) -> nn.Sequential:
    """MLP with a SiLU after every layer, and initial weights of variance 2 / fan-in (He et al. 2015)."""
    layers = (init_layer(nn.Linear(a, b), std=2**0.5) for a, b in pairwise(widths))
    return nn.Sequential(*(module for layer in layers for module in (layer, nn.SiLU())))


class ResidualMLP(nn.Module):
    """MLP of residual blocks h + B silu(A layernorm(h)).

    Inputs of mean square 1 give outputs of standard deviation about sqrt 2.

    Args:
        inputs: numbers of an input.
        width: of the hidden states.
        blocks: residual blocks.
        outputs: numbers of an output.
    """

    def __init__(self, inputs: int, width: int, blocks: int, outputs: int) -> None:
        super().__init__()
        self.enter = silu_mlp(inputs, width)
        self.blocks = nn.ModuleList([_residual(width) for _ in range(blocks)])
        self.leave = nn.Sequential(nn.LayerNorm(width), init_layer(nn.Linear(width, outputs), std=2**0.5))

    def forward(self, z: Float[Tensor, "n inputs"]) -> Float[Tensor, "n outputs"]:
        """Outputs of all blocks in turn."""
        h = self.enter(z)
        for block in self.blocks:
            h = h + block(h)
        out: Tensor = self.leave(h)
        return out


def _residual(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(width),
        init_layer(nn.Linear(width, width)),
        nn.SiLU(),
        init_layer(nn.Linear(width, width), std=0.5),
    )


def draw_latents(
    shape: tuple[int, int], kind: Latents, generator: Generator, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "n channels"]:
    """Sample latents on the generator's device: Bernoulli (+-1) or standard normal numbers.

    Between two sequences there is no point to land on, so that a continuous map of Gaussian latents spends
    some of them on each boundary. Bernoulli latents leave no boundary.
    """
    device = generator.device
    if kind == "gaussian":
        return torch.randn(shape, generator=generator, device=device).to(dtype)
    bits = torch.randint(2, shape, generator=generator, device=device, dtype=torch.int8)
    return bits.to(dtype) * 2 - 1


def output_points(
    h: Float[Tensor, "*batch K"], geometry: Geometry, output: Output
) -> Float[Tensor, "*batch K"]:
    """Map a network's outputs h to points.

    With geometry "spherical" they lie on the positive orthant of the unit sphere: |h| / ||h|| (output
    "abs_normalize") or sqrt(softmax(h)) ("softmax"). With "euclidean" they are softmax(h) for either
    output.
    """
    if geometry == "spherical" and output == "abs_normalize":
        return abs_normalize(h)
    log_p = h.log_softmax(-1)
    return (log_p / 2).exp() if geometry == "spherical" else log_p.exp()


def bf16_autocast(enabled: bool, z: Tensor, weight: Tensor) -> torch.autocast:
    """Context in which matrix products are in bfloat16 if enabled, on a GPU and for float32 weights."""
    half = enabled and z.is_cuda and weight.dtype == torch.float32
    return torch.autocast(z.device.type, torch.bfloat16, enabled=half)
