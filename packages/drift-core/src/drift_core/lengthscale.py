"""Lengthscales: constant, annealed over training, or estimated from the data."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from drift_core.manifold import Manifold

_ANNEALING_STEPS = 64
"""Geometric steps of annealing, the largest number of kernel tables that are built."""


@dataclass(frozen=True)
class Lengthscales:
    """One or more lengthscales, each constant or annealed geometrically over the first part of training."""

    start: tuple[float, ...]
    """Lengthscales at the beginning of training, in units of distance on the manifold."""
    stop: tuple[float, ...] = ()
    """Lengthscales after annealing; empty: those of the start throughout."""
    anneal: float = 0.5
    """Fraction of training over which to anneal."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "stop", self.stop or self.start)
        scales = (*self.start, *self.stop)
        if not self.start or len(self.start) != len(self.stop):
            raise ValueError(f"lengthscales need as many starts as stops, got {self.start} and {self.stop}")
        if not all(0 < scale < math.inf for scale in scales):
            raise ValueError(f"lengthscales must be positive and finite, got {scales}")
        if not 0 < self.anneal <= 1:
            raise ValueError(f"the annealed fraction of training must lie in (0, 1], got {self.anneal}")

    def at(self, progress: float) -> tuple[float, ...]:
        """Lengthscales at the fraction `progress` of training."""
        done = math.floor(min(1.0, progress / self.anneal) * _ANNEALING_STEPS) / _ANNEALING_STEPS
        return tuple(a * (b / a) ** done for a, b in zip(self.start, self.stop, strict=True))


def parse_lengthscales(text: str, *, auto: float | None = None) -> Lengthscales:
    """Lengthscales from a flag: "0.2", "0.2,0.6" (several), "3:0.2" (annealed), or "auto".

    `auto` is the value that "auto" stands for; forms combine, as in "3:0.2,auto".

    Raises:
        ValueError: text that is none of these, or a number that is not positive.
    """
    start, stop = [], []
    for item in text.split(","):
        ends = [_number(part, text, auto) for part in item.split(":")]
        if len(ends) > 2:
            raise ValueError(f"lengthscale {text!r}: {item!r} has more than one ':'")
        start.append(ends[0])
        stop.append(ends[-1])
    return Lengthscales(tuple(start), tuple(stop))


def checked_lengthscales(
    text: str, kernel: Callable[[float], object], auto: float | None = None
) -> Lengthscales:
    """`parse_lengthscales`, with a check that the kernel accepts the values before training starts.

    Raises:
        ValueError: as `parse_lengthscales` and `kernel` do.
    """
    scales = parse_lengthscales(text, auto=auto)
    for scale in {*scales.start, *scales.stop}:
        kernel(scale)
    return scales


def shortest_lengthscale(kernel: str, nu: float) -> float:
    """Shortest lengthscale that is affordable for a named kernel: 0 (any), or radians for spectral kernels.

    The series of spectral kernels get longer with 1 / lengthscale, and above all with nu.
    """
    if kernel != "spectral":
        return 0.0
    return 0.02 if nu <= 2.5 else 0.05


def _number(part: str, text: str, auto: float | None) -> float:
    if part.strip() == "auto" and auto is not None:
        return auto
    try:
        value = float(part)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ValueError(
            f"lengthscale {text!r}: expected a positive number, several (0.2,0.6), "
            f"an annealed one (3:0.2) or auto; {part!r} is none of these"
        )
    return value


def auto_lengthscale(manifold: Manifold, data: Float[Tensor, "n ..."], *, max_points: int = 2048) -> float:
    """Geometric mean of the median nearest-neighbour distance and the median distance of the data.

    The first is the finest structure that the data resolve, the second the scale at which all modes
    interact; the mean is a compromise. Coincident points count once.

    Raises:
        ValueError: fewer than two distinct points.
    """
    # A stride, not a head: files are often sorted. In float64: a float32 point lies 1e-8 off a curved
    # manifold, and its distance to itself may come out as that.
    points = manifold.projx(data.detach()[:: max(1, len(data) // max_points)][:max_points].double())
    points = torch.unique(points, dim=0)
    if len(points) < 2:
        raise ValueError("lengthscale 'auto' needs at least two distinct data points")
    r = manifold.cdist(points, points)
    others = ~torch.eye(len(points), dtype=torch.bool, device=r.device)
    nearest = r.masked_fill(~others, torch.inf).amin(dim=1)
    return math.sqrt(float(nearest.median()) * float(r[others].median()))
