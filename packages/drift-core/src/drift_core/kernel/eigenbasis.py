"""Eigenfunctions of the Laplacian: what kernels take of them, and those of rotations."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor
from torch.nn.functional import normalize, pad

PROBES = 256
"""Points that cover a space."""


@dataclass(frozen=True)
class Eigenbasis:
    """The first levels of a Laplacian: D eigenfunctions, orthonormal in the uniform probability measure.

    Where the spectrum is continuous, they are waves of unit mean square at an origin, with their measure.
    """

    eigenvalues: Float64[Tensor, " D"]
    """Eigenvalue of each function, from 0 on."""
    functions: Callable[[Tensor], Tensor]
    """Maps points [n, *point] to values [n, D], in float64; differentiable if points are continuous."""
    at_probes: Float64[Tensor, "q D"]
    """Their values at points that cover the space, at all pairs of which kernels are to be positive."""
    dim: int
    """Dimension of the space; 0 of a graph."""
    measure: Float64[Tensor, " D"] | None = None
    """Measure of each function, of a continuous spectrum on a homogeneous space; None: 1."""


def rotation_basis(levels: int) -> Eigenbasis:
    """Basis of SO(3) at unit quaternions (w, x, y, z): matrix entries of its representations.

    The eigenvalue of degree l is l (l + 1) for the angle of rotation as distance, of multiplicity (2 l + 1)^2
    (Peter and Weyl).
    """
    degrees = torch.arange(levels, dtype=torch.float64)
    many = (2 * torch.arange(levels) + 1) ** 2
    noise = torch.randn(PROBES, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    eigenvalues = (degrees * (degrees + 1)).repeat_interleave(many)
    at_probes = _rotation_functions(normalize(noise, dim=-1), levels)
    return Eigenbasis(eigenvalues, lambda x: _rotation_functions(x, levels), at_probes, 3)


def _rotation_functions(x: Float64[Tensor, "n 4"], levels: int) -> Float64[Tensor, "n D"]:
    """sqrt(2 l + 1) times the entries of the representations of degrees l, in real form.

    They are the even symmetric powers of the 2 x 2 matrix of the quaternion. Entry k from the end is
    the conjugate of entry k from the start, up to its sign, so that real and imaginary parts of half suffice.
    """
    w, i, j, k = x.unbind(-1)
    a, b = torch.complex(w, k), torch.complex(j, i)
    unit = torch.stack([a, b, -b.conj(), a.conj()], dim=-1).reshape(-1, 2, 2)
    power, columns = unit.new_ones(len(x), 1, 1), [torch.ones_like(x[:, :1])]
    for degree in range(1, 2 * levels - 1):
        power = _next_power(power, unit, degree)
        if degree % 2 == 0:
            entries = power.flatten(1)[:, : (degree + 1) ** 2 // 2 + 1]
            half, middle = entries[:, :-1], entries[:, -1:]
            parts = torch.cat([2**0.5 * half.real, 2**0.5 * half.imag, middle.real], dim=1)
            columns.append((degree + 1) ** 0.5 * parts)
    return torch.cat(columns, dim=1)


def _next_power(power: Tensor, unit: Tensor, degree: int) -> Tensor:
    """Symmetric power [n, degree + 1, degree + 1] of 2 x 2 matrices, from the one before.

    In the basis sqrt(binomial(N, p)) u^p v^(N - p), e_p^N = sqrt(p / N) e_{p-1}^{N-1} u +
    sqrt(1 - p / N) e_p^{N-1} v.
    """
    share = torch.arange(degree + 1, dtype=torch.float64, device=power.device) / degree
    factors = (1 - share).sqrt(), share.sqrt()
    grown = torch.zeros((), dtype=power.dtype, device=power.device)
    for s in (0, 1):
        for t in (0, 1):
            term = pad(power, (t, 1 - t, s, 1 - s)) * torch.outer(factors[s], factors[t])
            grown = grown + term * unit[:, s, t, None, None]
    return grown
