"""Anchors of the metrics: generators that are not trained."""

import math

import torch
from drift_core import Sphere
from jaxtyping import Float, Float64
from torch import Generator, Tensor, nn

BANDWIDTHS = (0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
"""Bandwidths, in radians, of which the likeliest on validation points is taken."""

_ROWS = 512


class UniformPoints(nn.Module):
    """Uniform noise on the sphere."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("where", torch.zeros(0))

    def sample(self, n: int, generator: Generator) -> Float[Tensor, "n 3"]:
        """Draw n unit vectors."""
        return nn.functional.normalize(torch.randn(n, 3, generator=generator), dim=-1)


class KernelDensity(nn.Module):
    """Kernel density estimate on the sphere, by von Mises-Fisher kernels around points.

    Its density is mean_j kappa / (2 pi (1 - exp(-2 kappa))) exp(kappa (x . y_j - 1)), with the concentration
    kappa = 1 / bandwidth^2 (Hall, Watson and Cabrera 1987). It recites: samples are points, but for a step
    as long as the bandwidth, in radians.
    """

    def __init__(self, points: Float[Tensor, "m 3"], bandwidth: float) -> None:
        super().__init__()
        self.register_buffer("points", points)
        self.concentration = bandwidth**-2
        self.points: Tensor

    def sample(self, n: int, generator: Generator) -> Float[Tensor, "n 3"]:
        """Draw n unit vectors: a point, and a step whose cosine has density proportional to exp(kappa w)."""
        y = self.points[torch.randint(len(self.points), (n,), generator=generator)].double()
        u = torch.rand(n, 1, generator=generator, dtype=torch.float64)
        kappa = self.concentration
        below_one = -(u + (1 - u) * math.exp(-2 * kappa)).log() / kappa  # 1 - w
        tangent = Sphere().proju(y, torch.randn(n, 3, generator=generator, dtype=torch.float64))
        sine = (below_one * (2 - below_one)).clamp(min=0).sqrt()
        x = (1 - below_one) * y + sine * nn.functional.normalize(tangent, dim=-1)
        return x.to(self.points)

    def log_density(self, x: Float[Tensor, "n 3"]) -> Float64[Tensor, " n"]:
        """Log-density at unit vectors, per steradian; O(m) memory per point."""
        kappa, parts = self.concentration, []
        scale = (
            math.log(kappa / (2 * math.pi)) - math.log(-math.expm1(-2 * kappa)) - math.log(len(self.points))
        )
        for rows in torch.split(x.double(), _ROWS):
            # x . y - 1 = -|x - y|^2 / 2, without cancellation
            distance = torch.cdist(rows, self.points.double(), compute_mode="donot_use_mm_for_euclid_dist")
            parts.append((-kappa * distance.square() / 2).logsumexp(dim=1) + scale)
        return torch.cat(parts)


def fitted_density(train: Float[Tensor, "m 3"], val: Float[Tensor, "n 3"]) -> KernelDensity:
    """Kernel density estimate of training points; the bandwidth is the likeliest on validation points."""
    found = [KernelDensity(train, bandwidth) for bandwidth in BANDWIDTHS]
    return max(found, key=lambda density: float(density.log_density(val).mean()))
