"""A synthetic stand-in for Earth events: clusters and a plate boundary on the sphere."""

import math

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from drift_sphere.coordinates import latlon_to_sphere, tangent_frame

# Centre (latitude, longitude in degrees), concentration, weight. The spread of a cluster is about
# 1/sqrt(concentration) radians: from 1.3 degrees to 18 degrees.
_CLUSTERS = (
    (38.0, -119.0, 150.0, 0.09),
    (19.0, -99.0, 400.0, 0.06),
    (-15.0, -72.0, 120.0, 0.09),
    (-38.0, -72.0, 800.0, 0.04),
    (64.0, -19.0, 2000.0, 0.03),
    (40.0, 15.0, 200.0, 0.09),
    (35.0, 72.0, 60.0, 0.09),
    (2.0, 36.0, 60.0, 0.06),
    (20.0, 82.0, 100.0, 0.06),
    (-3.0, 28.0, 300.0, 0.04),
    (-25.0, 134.0, 30.0, 0.05),
    (56.0, 40.0, 10.0, 0.05),
)

# The plate boundary: an arc of a great circle through two points, with Gaussian scatter across it.
_ARC_START, _ARC_END = (52.0, 160.0), (-38.0, 178.0)
_ARC_SCATTER = 0.03
_ARC_WEIGHT = 0.25


def toy(n: int, generator: Generator) -> Float[Tensor, "n 3"]:
    """Draw `n` unit vectors (float64): twelve von Mises-Fisher clusters and a band along a great circle.

    Sampling is exact, and depends only on the state of `generator`, a CPU generator.
    """
    latitude, longitude, concentration, weight = torch.tensor(_CLUSTERS, dtype=torch.float64).T
    weights = torch.cat((weight, weight.new_tensor([_ARC_WEIGHT])))
    component = torch.multinomial(weights, n, replacement=True, generator=generator)
    on_arc = component == len(_CLUSTERS)
    component = component.clamp(max=len(_CLUSTERS) - 1)
    centre = latlon_to_sphere(latitude, longitude)[component]
    cluster = von_mises_fisher(centre, concentration[component], generator)
    return torch.where(on_arc[:, None], _arc(n, generator), cluster)


def von_mises_fisher(
    mean: Float[Tensor, "n 3"], concentration: Float[Tensor, " n"], generator: Generator
) -> Float[Tensor, "n 3"]:
    """One draw for each mean direction from the density proportional to exp(concentration <mean, x>).

    Inverse of the distribution function of <mean, x>, which on S^2 has a closed form (Ulrich 1984).
    """
    u, angle = torch.rand(2, len(mean), generator=generator, dtype=mean.dtype)
    cos = 1 + torch.log(u + (1 - u) * torch.exp(-2 * concentration)) / concentration
    sin = (1 - cos**2).clamp(min=0).sqrt()
    east, north = tangent_frame(mean)
    turn = 2 * math.pi * angle
    tangent = turn.cos()[:, None] * east + turn.sin()[:, None] * north
    return cos[:, None] * mean + sin[:, None] * tangent


def _arc(n: int, generator: Generator) -> Float[Tensor, "n 3"]:
    ends = torch.tensor([_ARC_START, _ARC_END], dtype=torch.float64)
    start, end = latlon_to_sphere(ends[:, 0], ends[:, 1])
    pole = torch.linalg.cross(start, end)
    length = torch.atan2(pole.norm(), start @ end)
    pole = pole / pole.norm()
    along = length * torch.rand(n, 1, generator=generator, dtype=torch.float64)
    across = _ARC_SCATTER * torch.randn(n, 1, generator=generator, dtype=torch.float64)
    on_circle = along.cos() * start + along.sin() * torch.linalg.cross(pole, start)
    return across.cos() * on_circle + across.sin() * pole
