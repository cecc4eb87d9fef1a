"""Tables of radial kernels: log k as the integral of its slope, a quadratic in every cell.

There are as many cells in every octave of a variable, since a kernel may change at any scale; on a sphere in
every octave from either pole.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float32
from torch import Tensor

from drift_core.kernel import RadialKernel


class Variable(NamedTuple):
    """What a table is a function of: a distance r, or a number v whose derivative in r has a known length."""

    octaves: range
    """Those that a table covers, as powers of 2."""
    near: Callable[[Tensor], tuple[Tensor, Tensor]]
    """Distances r, and dv / dr there."""
    folded: bool = False
    """Whether cells from distance pi follow, of the variable that it would have for pi - r."""

    def ends(self, v: Tensor) -> Tensor:
        """Variable v from the first pole and, if folded, from the other one."""
        return torch.cat([v, v]) if self.folded else v

    def at(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Distances, and dv / dr, of such variables."""
        r, length = self.near(v)
        if self.folded:
            r = torch.cat([r[: len(r) // 2], math.pi - r[len(r) // 2 :]])
        return r, length


DISTANCE = Variable(range(-100, 40), lambda r: (r, torch.ones_like(r)))
ANGLE = Variable(range(-30, 1), DISTANCE.near, folded=True)
"""The same of kernels on a sphere."""
FLAT = Variable(range(-120, 80), lambda v: ((2 * v).sqrt(), (2 * v).sqrt()))
"""r^2 / 2."""
SPHERICAL = Variable(range(-60, 0), lambda v: (2 * (v / 2).sqrt().asin(), (v * (2 - v)).sqrt()), folded=True)
"""1 - cos r."""
HYPERBOLIC = Variable(range(-100, 100), lambda v: (2 * (v / 2).sqrt().asinh(), (v * (v + 2)).sqrt()))
"""cosh r - 1."""
_LOG_ERROR, _SLOPE_ERROR = 2e-7, 5e-6
"""Largest errors of a table: of log k relative to 1 + |log k|, of the slope to its largest in the cell."""


@torch.no_grad()
def pieces_of(kernel: RadialKernel, variable: Variable, bits: int) -> Float32[Tensor, "cells 4"] | None:
    """Table with 2^bits cells an octave: log k at the starts of cells, and quadratics for its slope in v.

    Quadratics are in ascending powers of the position in the cell, from 0 to 1, and interpolate at
    Chebyshev's nodes. To leading order their error is largest at the ends of a cell and at its quarters,
    where it is measured: None if they are inaccurate. In the first cells, which stand for all that is nearer
    to a pole, the slope is 0: pairs there have no direction.
    """
    octave = 2.0 ** torch.tensor(variable.octaves, dtype=torch.float64)
    start = variable.ends((octave[:, None] * (1 + torch.arange(2**bits) / 2**bits)).flatten())[:, None]
    width = variable.ends(octave.repeat_interleave(2**bits) / 2**bits)[:, None]
    powers = torch.arange(3)
    nodes = (1 - (math.pi * (2 * powers.double() + 1) / 6).cos()) / 2
    r, length = variable.at(start + width * nodes)
    slopes = kernel.dlog(r) / length
    quadratics = slopes @ torch.linalg.inv(nodes[:, None] ** powers).T
    probes = torch.tensor([0, 0.25, 0.75, 1], dtype=torch.float64)
    r, length = variable.at(start + width * probes)
    log, sign = kernel.log(r), (r[:, -1:] - r[:, :1]).sign()  # -1 from the other pole
    means = quadratics @ (probes[:, None] ** powers / (powers + 1)).T
    log_error = (log[:, :1] + sign * width * probes * means - log).abs()
    slope_error = (quadratics @ (probes[:, None] ** powers).T - kernel.dlog(r) / length).abs()
    accurate = log_error <= _LOG_ERROR * (1 + log.abs())
    accurate &= slope_error <= _SLOPE_ERROR * slopes.abs().amax(1, keepdim=True)
    quadratics[(start == start[0]).flatten()] = 0
    table = torch.cat([log[:, :1], quadratics], dim=1).float()
    flat = (log[0, 0] - kernel.log(torch.zeros_like(log[0, 0]))).abs() <= _LOG_ERROR  # below the first cell
    return table if bool(flat & accurate.all() & table.isfinite().all()) else None
