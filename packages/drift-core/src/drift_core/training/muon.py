"""The Muon optimiser: orthogonalised momentum for the matrices of a network, AdamW for all else."""

from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn

_MOMENTUM = 0.95
_ADAM_RMS = 0.2
"""Root mean square of a typical update of Adam, relative to the learning rate."""
_ITERATIONS = 5
_QUINTIC = 3.4445, -4.7750, 2.0315
"""Coefficients of Newton-Schulz iterations that bring all singular values near 1 in a few steps."""
_HALLEY = 86.2002, 1814.77, 1899.97
"""Weights a, b = (a - 1)^2 / 4 and c = a + b - 1 of the Halley iteration x (a + b x^2) / (1 + c x^2) that is
nearest to 1 for singular values x of 1/200 to 1: 0.41 to 1 (Nakatsukasa, Bai and Gygi 2010)."""
_CENTRE = 1.4168
"""Factor by which these become 0.58 to 1.42."""


class Muon(torch.optim.AdamW):
    """Muon (Jordan et al. 2024) for some matrices, AdamW for other parameters.

    The update of a matrix is its Nesterov momentum with all singular values set to about 1, scaled so that
    its root mean square is that of Adam's (Liu et al. 2025, arXiv 2502.16982): learning rates and weight
    decay carry over from AdamW. Directions of the weights that get small gradients learn as fast as others.

    An update costs about as much as four matrix products per matrix on a CPU, and 15 on a GPU. Weights of
    convolutions count as matrices of one row per output channel.
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
    """Matrix [a, b] with the same singular vectors and singular values of about 1, between 0.5 and 1.5.

    By one Halley iteration on a CPU, which multiplies singular values far below 1/200 of the matrix's norm
    by 122; elsewhere by five Newton-Schulz iterations, by 485. A zero matrix stays zero.
    """
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / torch.linalg.matrix_norm(x).clamp_min(torch.finfo(x.dtype).tiny)
    x = halley(x) if x.device.type == "cpu" else newton_schulz(x)
    return x.T if matrix.shape[0] > matrix.shape[1] else x


def halley(x: Tensor) -> Tensor:
    """(a + b G) (1 + c G)^-1 x with the Gram matrix G = x x', of a matrix [a, b] of norm 1, b >= a."""
    a, b, c = _HALLEY
    gram = (x @ x.T).mul_(c)
    gram.diagonal().add_(1)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky_ex(gram).L)
    return torch.addmm(x, inverse, x, beta=_CENTRE * b / c, alpha=_CENTRE * (a - b / c))


def newton_schulz(x: Tensor) -> Tensor:
    """The same by products alone, of bfloat16 numbers unless x is float64, which suit a GPU."""
    a, b, c = _QUINTIC
    y = x if x.dtype == torch.float64 else x.bfloat16()
    for _ in range(_ITERATIONS):
        gram = y @ y.T
        y = torch.addmm(y, torch.addmm(gram, gram, gram, beta=b, alpha=c), y, beta=a)
    return y.to(x.dtype)


def hidden_matrices(module: nn.Module) -> list[Tensor]:
    """Weights of all linear layers and convolutions, except those of the last layer, the network's output."""
    layers = [part for part in module.modules() if isinstance(part, nn.Linear | nn.Conv1d)]
    return [layer.weight for layer in layers[:-1]]
