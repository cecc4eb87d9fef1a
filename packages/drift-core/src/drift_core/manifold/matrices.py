"""Logarithm and exponential of symmetric matrices, and their differentials, in float64.

In the eigenbasis of X, the differential of a function f at X multiplies entry ij by the divided difference
(f(a_i) - f(a_j)) / (a_i - a_j) of the eigenvalues (Daleckii and Krein; Higham, Functions of Matrices, theorem
3.11). Nothing divides by a difference of eigenvalues, which may be equal.
"""

from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor


def symmetric(x: Tensor) -> Tensor:
    """Symmetric part (X + X^T) / 2."""
    return (x + x.mT) / 2


def logm(x: Float64[Tensor, "*batch n n"]) -> Float64[Tensor, "*batch n n"]:
    """Logarithm of symmetric positive definite matrices; differentiable, at equal eigenvalues too."""
    return _Logarithm.apply(x)


def expm(s: Float64[Tensor, "*batch n n"]) -> Float64[Tensor, "*batch n n"]:
    """Exponential of symmetric matrices."""
    return symmetric(torch.linalg.matrix_exp(symmetric(s)))


def dlogm(x: Float64[Tensor, "*#batch n n"], u: Float64[Tensor, "*#batch n n"]) -> Float64[Tensor, "*_ n n"]:
    """Differential of the logarithm at X, of a symmetric U."""
    values, vectors = torch.linalg.eigh(x)
    return vectors @ (_slopes(values) * (vectors.mT @ symmetric(u) @ vectors)) @ vectors.mT


def dexpm(x: Float64[Tensor, "*#batch n n"], u: Float64[Tensor, "*#batch n n"]) -> Float64[Tensor, "*_ n n"]:
    """Differential of the exponential at log X, the inverse of `dlogm` at X."""
    values, vectors = torch.linalg.eigh(x)
    return vectors @ ((vectors.mT @ symmetric(u) @ vectors) / _slopes(values)) @ vectors.mT


def _slopes(values: Float64[Tensor, "*batch n"]) -> Float64[Tensor, "*batch n n"]:
    """Divided differences of the logarithm, 2 atanh(t) / t / (a + b) with t = (a - b) / (a + b)."""
    a, b = values.unsqueeze(-1), values.unsqueeze(-2)
    t = (a - b) / (a + b)
    series = 1 + t.square() / 3 + t.square().square() / 5
    small = t.abs() < 1e-3
    ratio = torch.atanh(t.masked_fill(small, 0.5)) / t.masked_fill(small, 0.5)
    return 2 * torch.where(small, series, ratio) / (a + b)


class _Logarithm(torch.autograd.Function):
    """Its backward is `dlogm`, which is self-adjoint."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        values, vectors = torch.linalg.eigh(x)
        ctx.save_for_backward(x)
        return (vectors * values.log().unsqueeze(-2)) @ vectors.mT

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return dlogm(x, gradients[0])
