"""Radial kernels in the form that fused loops evaluate: four closed forms, and tables for all others."""

import math
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Float32, Float64
from torch import Tensor

from drift_core.kernel import Gaussian, Laplace, Matern, RadialKernel
from drift_core.kernel.matern import HalfInteger, matern_form


class Form(IntEnum):
    """How a fused loop evaluates log k(r) and d log k / dr."""

    LAPLACE = 0
    GAUSSIAN = 1
    HALF_INTEGER = 2
    OCTAVES = 3
    UNIFORM = 4


class Profile(NamedTuple):
    """A radial kernel for fused loops."""

    form: Form
    rate: float
    """1 / l (Laplace), 1 / l^2 (Gaussian), sqrt(2 nu) / l (half-integer), cells per unit of r (uniform)."""
    factors: int = 0
    """nu - 1/2 of a half-integer order."""
    first: int = 0
    """Of `OCTAVES`: the cell of r is bits(r) >> shift, a float32's bit pattern, from `first` on."""
    shift: int = 0
    """Of `OCTAVES`: low bits of r that are not part of the cell."""
    cubics: Float32[Tensor, "cells 8"] | None = None
    """In every cell the coefficients of two cubics, of log k and of d log k / dr, in ascending powers of the
    position in the cell, from 0 to 1."""


_RATES = 1e-30, 1e30
"""Rates that a float32 computation can use."""
_FIRST_OCTAVE, _END_OCTAVE = -100, 40
"""Distances that a table by octaves covers, as powers of 2."""
_TABLES = (Form.OCTAVES, 5), (Form.OCTAVES, 7), (Form.OCTAVES, 9)
"""Tables to try: cells per octave, as powers of 2."""
_SPHERE_TABLES = (
    *((Form.OCTAVES, 5), (Form.OCTAVES, 6), (Form.UNIFORM, 4096)),
    *((Form.OCTAVES, 7), (Form.UNIFORM, 16384), (Form.UNIFORM, 65536)),
)
"""Tables to try for a kernel on a sphere: cells per octave, as powers of 2, or equal cells on [0, pi]."""
_LOG_ERROR, _SLOPE_ERROR = 2e-7, 5e-6
"""Largest errors of a table: of log k relative to 1 + |log k|, of the slope to its largest in the cell."""


def profile_of(kernel: RadialKernel) -> Profile | None:
    """Profile of a kernel; None if no table of it is accurate, as for a kernel of compact support.

    Tables of kernels that can change, those that are not frozen dataclasses, are made anew at every call.
    """
    if type(kernel) is Matern:
        kernel = matern_form(kernel.lengthscale, kernel.nu)
    closed = _closed_form(kernel)
    if closed is not None:
        return closed if _RATES[0] < closed.rate < _RATES[1] else None
    parameters = getattr(type(kernel), "__dataclass_params__", None)
    return _cached(kernel) if parameters is not None and parameters.frozen else _tabulated(kernel)


def _closed_form(kernel: RadialKernel) -> Profile | None:
    if type(kernel) is Laplace:
        return Profile(Form.LAPLACE, 1 / kernel.lengthscale)
    if type(kernel) is Gaussian:
        return Profile(Form.GAUSSIAN, 1 / kernel.lengthscale**2)
    if type(kernel) is HalfInteger:
        return Profile(Form.HALF_INTEGER, kernel.rate, round(kernel.nu - 0.5))
    return None


@lru_cache(maxsize=256)
def _cached(kernel: RadialKernel) -> Profile | None:
    return _tabulated(kernel)


@torch.no_grad()
def _tabulated(kernel: RadialKernel) -> Profile | None:
    """The smallest accurate table of a kernel."""
    tables = _TABLES if kernel.sphere_dim is None else _SPHERE_TABLES
    candidates = ((_octaves if form == Form.OCTAVES else _uniform)(kernel, size) for form, size in tables)
    return next((profile for profile in candidates if profile is not None), None)


def _octaves(kernel: RadialKernel, bits: int) -> Profile | None:
    """Table whose cells grow in proportion to r, 2^bits an octave."""
    end = 2 if kernel.sphere_dim is not None else _END_OCTAVE
    mantissa = 1 + torch.arange(2**bits, dtype=torch.float64) / 2**bits
    octave = 2.0 ** torch.arange(_FIRST_OCTAVE, end, dtype=torch.float64)
    start = (octave[:, None] * mantissa).flatten()
    cubics = _cubics(kernel, start, octave.repeat_interleave(2**bits) / 2**bits)
    if cubics is None or not _flat_below(kernel, start[:1]):
        return None
    return Profile(Form.OCTAVES, 1.0, first=(127 + _FIRST_OCTAVE) << bits, shift=23 - bits, cubics=cubics)


def _flat_below(kernel: RadialKernel, r: Float64[Tensor, "1"]) -> bool:
    """Whether log k is constant between 0 and r, up to the error of a table."""
    return bool((kernel.log(r) - kernel.log(torch.zeros_like(r))).abs() <= _LOG_ERROR)


def _uniform(kernel: RadialKernel, cells: int) -> Profile | None:
    """Table of equal cells on [0, pi]."""
    width = torch.full((cells,), math.pi / cells, dtype=torch.float64)
    cubics = _cubics(kernel, torch.arange(cells, dtype=torch.float64) * width, width)
    return None if cubics is None else Profile(Form.UNIFORM, cells / math.pi, cubics=cubics)


def _cubics(
    kernel: RadialKernel, start: Float64[Tensor, " k"], width: Float64[Tensor, " k"]
) -> Float32[Tensor, "cells 8"] | None:
    """Coefficients of the cubics that interpolate log k and its slope in cells; None if they are inaccurate.

    They interpolate at both ends and the thirds of a cell. To leading order their error is proportional to
    s (s - 1/3) (s - 2/3) (s - 1), largest at 0.127 and 0.873, where it is measured, and at the middle.
    """
    nodes = torch.arange(4, dtype=torch.float64) / 3
    values = _continued(kernel, start[:, None] + width[:, None] * nodes)
    inverse = torch.linalg.inv(nodes[:, None] ** torch.arange(4))
    cubics = [value @ inverse.T for value in values]
    probes = torch.tensor([0.127, 0.5, 0.873], dtype=torch.float64)
    log, slope = _continued(kernel, start[:, None] + width[:, None] * probes)
    log_error, slope_error = (
        (cubic @ (probes[:, None] ** torch.arange(4)).T - value).abs()
        for cubic, value in zip(cubics, (log, slope), strict=True)
    )
    accurate = log_error <= _LOG_ERROR * (1 + log.abs())
    accurate &= slope_error <= _SLOPE_ERROR * values[1].abs().amax(1, keepdim=True)
    table = torch.cat(cubics, dim=1).float()
    return table if bool(accurate.all()) and bool(table.isfinite().all()) else None


def _continued(kernel: RadialKernel, r: Float64[Tensor, "*shape"]) -> tuple[Tensor, Tensor]:
    """log k and its slope; those of a kernel on a sphere are even about pi."""
    if kernel.sphere_dim is None:
        return kernel.log(r), kernel.dlog(r)
    folded = torch.where(r > math.pi, 2 * math.pi - r, r)
    return kernel.log(folded), kernel.dlog(folded) * torch.where(r > math.pi, -1.0, 1.0)
