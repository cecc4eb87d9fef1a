"""Spaces of a continuous spectrum: plane waves of the hyperbolic plane and of SPD(2), by quadrature."""

import math

import numpy as np
import torch
from jaxtyping import Complex128, Float64
from torch import Tensor

from drift_core.arguments import positive
from drift_core.kernel.eigenbasis import PROBES, Eigenbasis
from drift_core.manifold.matrices import expm

_SHARE = 0.6
"""Highest frequency times the diameter of the ball, over pi times the levels."""
_MORE = 4
"""Frequencies beyond the levels, for the poles of the Plancherel measure."""
_GOLDEN = (5**0.5 - 1) / 2


def hyperbolic_basis(levels: int, radius: float = 2.0) -> Eigenbasis:
    """Basis of H^2 at points (t, x, y) of the hyperboloid, up to a distance `radius` from (1, 0, 0).

    A kernel of the Laplacian is the integral of exp((1/2 + i lambda) <z, b>), <z, b> = -log(t - b . (x, y)),
    times its conjugate at another point, over directions b and frequencies lambda >= 0 with the Plancherel
    measure lambda tanh(pi lambda) (Azangulov et al. 2024, arXiv 2301.13088). The random phases of that paper
    are a Monte Carlo estimate, whose noise is as large as the kernel a few lengthscales away. Here
    frequencies are Gauss-Legendre nodes and directions equal angles: the error falls exponentially with the
    levels, for points in the ball. Eigenvalues are lambda^2 + 1/4.

    Raises:
        ValueError: levels below 1, a radius that is not positive; from the functions, points outside.
    """
    radius = positive("radius", radius)
    waves = _Waves(levels, radius)

    def functions(z: Float64[Tensor, "n 3"]) -> Float64[Tensor, "n D"]:
        time = (1 + z[:, 1:].square().sum(1)).sqrt()
        _check_inside(torch.acosh(time.detach()), radius)
        return 2**0.5 * torch.view_as_real(waves(time, z[:, 1:])).flatten(1)

    index = torch.arange(PROBES, dtype=torch.float64)
    r, angle = radius * ((index + 0.5) / PROBES).sqrt(), 2 * math.pi * _GOLDEN * index
    probes = torch.stack([r.cosh(), r.sinh() * angle.cos(), r.sinh() * angle.sin()], dim=1)
    eigenvalues = (waves.frequency.square() + 0.25).repeat_interleave(2)
    return Eigenbasis(eigenvalues, functions, functions(probes), 2, waves.measure.repeat_interleave(2))


def spd_basis(levels: int, radius: float = 2.0) -> Eigenbasis:
    """Basis of positive definite matrices [2, 2] with the affine-invariant metric, |log(X^-1/2 Y X^-1/2)|.

    X is exp(s / sqrt(2)) times a matrix of determinant 1, a point of the product of the line and of H^2 with
    sqrt(2) times its distances: functions are products of waves on both, of eigenvalues mu^2 + (lambda^2 +
    1/4) / 2, cut at a sphere of frequencies. `radius` is the largest distance from the identity.

    Raises:
        ValueError: as `hyperbolic_basis`.
    """
    radius = positive("radius", radius)
    waves = _Waves(levels, radius / 2**0.5)
    along, weight = _nodes(levels, _SHARE * math.pi * levels / (2 * radius))
    square = along[:, None].square() + waves.frequency.square() / 2
    line, wave = torch.nonzero(square <= (_SHARE * math.pi * levels / (2 * radius)) ** 2, as_tuple=True)

    def functions(x: Float64[Tensor, "n 2 2"]) -> Float64[Tensor, "n D"]:
        a, b, d = x[:, 0, 0], (x[:, 0, 1] + x[:, 1, 0]) / 2, x[:, 1, 1]
        root = (a * d - b * b).sqrt()
        s, time = 2**0.5 * root.log(), (a + d) / (2 * root)
        length = torch.hypot(s, 2**0.5 * torch.acosh(time.clamp_min(1))).detach()
        _check_inside(length, radius)
        hyperbolic = waves(time, torch.stack([a - d, 2 * b], dim=1) / (2 * root[:, None]))[:, wave]
        phase = (s[:, None] * along.to(s.device))[:, line]
        parts = [part * hyperbolic for part in (phase.cos(), phase.sin())]
        return 2 * torch.view_as_real(torch.stack(parts, dim=2)).flatten(1)

    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(PROBES, 3, generator=generator, dtype=torch.float64)
    share = ((torch.arange(PROBES, dtype=torch.float64) + 0.5) / PROBES) ** (1 / 3)
    a, b, d = (radius * share[:, None] * torch.nn.functional.normalize(noise, dim=1)).unbind(1)
    log = torch.stack([a, b / 2**0.5, b / 2**0.5, d], dim=1).reshape(-1, 2, 2)
    eigenvalues, measure = square[line, wave] + 1 / 8, weight[line] * waves.measure[wave]
    return Eigenbasis(
        *(eigenvalues.repeat_interleave(4), functions, functions(expm(log)), 3),
        measure.repeat_interleave(4),
    )


class _Waves:
    """Waves of H^2 of the first levels of frequencies, which are accurate up to a radius."""

    def __init__(self, levels: int, radius: float) -> None:
        frequency, weight = _nodes(levels, _SHARE * math.pi * levels / (2 * radius))
        # As many directions as the waves oscillate along the circle of that radius, and as their width e^-r.
        number = 1.5 * math.sinh(radius) * frequency + (levels + _MORE) * math.exp(radius) / 4
        count = number.ceil().long()
        turns = [(torch.arange(n).double() + _GOLDEN * j) / n for j, n in enumerate(count.tolist())]
        angle = 2 * math.pi * torch.cat(turns)
        self._direction = torch.stack([angle.cos(), angle.sin()])
        self.frequency = frequency.repeat_interleave(count)
        """lambda of each wave."""
        self.measure = (weight * frequency * torch.tanh(math.pi * frequency) / count).repeat_interleave(count)
        """Its share of the Plancherel measure, up to a constant."""

    def __call__(
        self, time: Float64[Tensor, " n"], space: Float64[Tensor, "n 2"]
    ) -> Complex128[Tensor, "n w"]:
        """Values at points of the hyperboloid."""
        height = -(time[:, None] - space @ self._direction.to(space.device)).log()
        return torch.polar((height / 2).exp(), self.frequency.to(space.device) * height)


def _nodes(levels: int, highest: float) -> tuple[Float64[Tensor, " k"], Float64[Tensor, " k"]]:
    """Gauss-Legendre nodes and weights on [0, highest]."""
    if levels < 1:
        raise ValueError(f"levels must be at least 1, got {levels}")
    nodes, weights = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(levels + _MORE))
    return (nodes + 1) / 2 * highest, weights / 2 * highest


def _check_inside(distance: Float64[Tensor, " n"], radius: float) -> None:
    """Raise ValueError for points outside the ball that a basis covers."""
    if bool((distance > radius * (1 + 1e-6)).any()):
        raise ValueError(
            f"points are up to {float(distance.max()):.3g} from the origin, the basis covers a radius of "
            f"{radius:g}; give it a larger one"
        )
