"""Anchors of the metrics: generators that are not trained."""

import math

import torch
from drift_core import Sphere
from jaxtyping import Float
from torch import Generator, Tensor, nn

from drift_sphere.likelihood import best_bandwidth

_GRID = 4_096
"""Angles at which the distribution of a kernel's steps is tabulated."""


class UniformPoints(nn.Module):
    """Uniform noise on the sphere."""

    def sample(self, n: int, generator: Generator) -> Float[Tensor, "n 3"]:
        """Draw n unit vectors."""
        return nn.functional.normalize(torch.randn(n, 3, generator=generator), dim=-1)


class Bootstrap(nn.Module):
    """Bootstrap samples, points drawn with replacement: a generator that recites, and does nothing else."""

    def __init__(self, points: Float[Tensor, "m 3"]) -> None:
        super().__init__()
        self.points = points

    def sample(self, n: int, generator: Generator) -> Float[Tensor, "n 3"]:
        """Draw n of the points, each independently of the others."""
        return self.points[torch.randint(len(self.points), (n,), generator=generator)]


class KernelDensity(Bootstrap):
    """Kernel density estimate on the sphere, with the kernels of `log_likelihood` around points.

    Its samples are a smoothed bootstrap, which recites: each is a point, but for a step whose angle d has
    density proportional to sin(d) exp(-d^2 / (2 bandwidth^2)), in a random direction.
    """

    def __init__(self, points: Float[Tensor, "m 3"], bandwidth: float) -> None:
        super().__init__(points)
        self.bandwidth = bandwidth
        self.angles = torch.linspace(0, min(math.pi, 12 * bandwidth), _GRID, dtype=torch.float64)
        density = self.angles.sin() * (-((self.angles / bandwidth) ** 2) / 2).exp()
        cumulative = nn.functional.pad(torch.cumulative_trapezoid(density, self.angles), (1, 0))
        self.cumulative = cumulative / cumulative[-1]

    def sample(self, n: int, generator: Generator) -> Float[Tensor, "n 3"]:
        """Draw n unit vectors."""
        y = super().sample(n, generator).double()
        tangent = Sphere().proju(y, torch.randn(n, 3, generator=generator, dtype=torch.float64))
        step = self.angle(torch.rand(n, 1, generator=generator, dtype=torch.float64))
        return Sphere().expmap(y, step * nn.functional.normalize(tangent, dim=-1)).to(self.points)

    def angle(self, u: Float[Tensor, "n 1"]) -> Float[Tensor, "n 1"]:
        """Quantiles of the angle of a step, interpolated."""
        right = torch.searchsorted(self.cumulative, u).clamp(1, _GRID - 1)
        low, high = self.cumulative[right - 1], self.cumulative[right]
        share = ((u - low) / (high - low)).nan_to_num(0.0).clamp(0, 1)
        return self.angles[right - 1].lerp(self.angles[right], share)


def fitted_density(train: Float[Tensor, "m 3"], val: Float[Tensor, "n 3"]) -> KernelDensity:
    """Kernel density estimate of training points, whose bandwidth is the best for validation points."""
    return KernelDensity(train, best_bandwidth(train, val))
