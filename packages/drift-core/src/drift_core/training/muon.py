"""The Muon optimiser: orthogonalised momentum for the matrices of a network, AdamW for all else."""

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor, nn

_MOMENTUM = 0.95
_ADAM_RMS = 0.2
"""Root mean square of a typical update of Adam, relative to the learning rate."""
_ITERATIONS = 5
_LARGE = 256
"""Rows and columns from which a CPU's bfloat16 products are faster, about twice at 512."""
_QUINTIC = 3.4445, -4.7750, 2.0315
"""Coefficients of Newton-Schulz iterations that bring all singular values near 1 in a few steps."""


class Muon(torch.optim.AdamW):
    """Muon (Jordan et al. 2024) for some matrices, AdamW for other parameters.

    The update of a matrix is its Nesterov momentum with all singular values set to about 1, scaled so that
    its root mean square is that of Adam's (Liu et al. 2025, arXiv 2502.16982): learning rates and weight
    decay carry over from AdamW. Directions of the weights that get small gradients learn as fast as others.

    An update costs 15 matrix products per matrix. Weights of convolutions count as matrices of one row per
    output channel.
    """

    def __init__(self, matrices: Iterable[Tensor], others: Iterable[Tensor], **settings: Any) -> None:
        groups = [
            {"params": list(matrices), "orthogonal": True},
            {"params": list(others), "orthogonal": False},
        ]
        super().__init__([group for group in groups if group["params"]], **settings)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update all parameters. The gradients of the matrices are consumed."""
        for group in self.param_groups:
            for weight in group["params"] if group["orthogonal"] else ():
                if weight.grad is not None:
                    self._update(weight, weight.grad, group["lr"], group["weight_decay"])
                    weight.grad = None  # AdamW passes over it
        return cast("float | None", super().step(closure))

    def _update(self, weight: Tensor, gradient: Tensor, lr: float, weight_decay: float) -> None:
        state = self.state[weight]
        if not state:
            # AdamW's loading of checkpoints expects a step for every parameter.
            state |= {"step": torch.zeros((), device=weight.device), "momentum": torch.zeros_like(weight)}
        state["step"] += 1
        state["momentum"].lerp_(gradient, 1 - _MOMENTUM)
        nesterov = gradient.lerp(state["momentum"], _MOMENTUM).flatten(1)
        update = orthogonalize(nesterov) * (_ADAM_RMS * max(nesterov.shape) ** 0.5)
        weight.mul_(1 - lr * weight_decay).sub_(update.view_as(weight), alpha=lr)


def orthogonalize(matrix: Tensor) -> Tensor:
    """Matrix [a, b] with the same singular vectors and singular values between about 0.7 and 1.2.

    Newton-Schulz iterations, in bfloat16 on a GPU, and of large matrices where a CPU has it. A zero matrix
    stays zero.
    """
    a, b, c = _QUINTIC
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = (x / torch.linalg.matrix_norm(x).clamp_min(torch.finfo(x.dtype).tiny)).to(_precision(x))
    for _ in range(_ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.T if matrix.shape[0] > matrix.shape[1] else x).to(matrix.dtype)


def _precision(matrix: Tensor) -> torch.dtype:
    """Type of numbers of the iterations for a matrix, bfloat16 where that is faster."""
    if matrix.dtype != torch.float32:
        return matrix.dtype
    large = min(matrix.shape) >= _LARGE and _has_bfloat16()
    return torch.bfloat16 if matrix.is_cuda or large else matrix.dtype


@cache
def _has_bfloat16() -> bool:
    """Whether the CPU has instructions for products of bfloat16 numbers; False on older torch."""
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def hidden_matrices(module: nn.Module) -> list[Tensor]:
    """Weights of all linear layers and convolutions, except those of the last layer, the network's output."""
    layers = [part for part in module.modules() if isinstance(part, nn.Linear | nn.Conv1d)]
    return [layer.weight for layer in layers[:-1]]
