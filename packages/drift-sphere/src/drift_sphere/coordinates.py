"""Geographic coordinates in degrees and unit vectors in R^3."""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def latlon_to_sphere(
    latitude: Float[Tensor, "*shape"], longitude: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape 3"]:
    """Unit vectors (cos lat cos lon, cos lat sin lon, sin lat), float64, of coordinates in degrees."""
    lat, lon = torch.deg2rad(latitude.double()), torch.deg2rad(longitude.double())
    return torch.stack((lat.cos() * lon.cos(), lat.cos() * lon.sin(), lat.sin()), dim=-1)


def sphere_to_latlon(x: Float[Tensor, "*shape 3"]) -> Float[Tensor, "*shape 2"]:
    """Latitude in [-90, 90] and longitude in [-180, 180], degrees, float64, of non-zero vectors."""
    x = x.double()
    latitude = torch.atan2(x[..., 2], x[..., :2].norm(dim=-1))
    longitude = torch.atan2(x[..., 1], x[..., 0])
    return torch.rad2deg(torch.stack((latitude, longitude), dim=-1))


def tangent_frame(
    x: Float[Tensor, "*shape 3"],
) -> tuple[Float[Tensor, "*shape 3"], Float[Tensor, "*shape 3"]]:
    """Unit vectors to the east and to the north at unit vectors `x`; at a pole, those of longitude 0."""
    longitude = torch.atan2(x[..., 1], x[..., 0])
    east = torch.stack((-longitude.sin(), longitude.cos(), torch.zeros_like(longitude)), dim=-1)
    return east, torch.linalg.cross(x, east)


def spiral_grid(n: int) -> Float[Tensor, "n 3"]:
    """Return `n` nearly evenly spaced unit vectors (float32), a golden-angle spiral from pole to pole."""
    i = torch.arange(n, dtype=torch.float64) + 0.5
    z, longitude = 1 - 2 * i / n, math.pi * (1 + 5**0.5) * i
    radius = (1 - z**2).sqrt()
    return torch.stack((radius * longitude.cos(), radius * longitude.sin(), z), dim=-1).float()


def check_on_sphere(x: Float[Tensor, "n 3"], what: str) -> None:
    """Raise ValueError unless every row of `x`, called `what` in the message, is a unit vector to 1e-3."""
    off = ~((x.norm(dim=-1) - 1).abs() <= 1e-3)
    if off.any():
        row = int(off.nonzero()[0])
        raise ValueError(f"{what}: row {row} is {x[row].tolist()}, which is not on the unit sphere")
