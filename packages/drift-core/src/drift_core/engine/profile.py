"""Radial kernels in the form that fused loops evaluate: three closed forms, and tables for all others."""

from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

from jaxtyping import Float32
from torch import Tensor

from drift_core.engine.tables import ANGLE, DISTANCE, Variable, pieces_of
from drift_core.kernel import Gaussian, Laplace, Matern, RadialKernel
from drift_core.kernel.matern import HalfInteger, matern_form


class Form(IntEnum):
    """How a fused loop evaluates log k and its slope."""

    LAPLACE = 0
    GAUSSIAN = 1
    HALF_INTEGER = 2
    TABLE = 3
    FOLDED_TABLE = 4
    """Of kernels on a sphere."""
    TABLE_OF_SQUARES = 5
    """Of half the squared distance, or what takes its place in a geometry: there is no root to take."""


class Profile(NamedTuple):
    """A radial kernel for fused loops."""

    form: Form
    rate: float = 1.0
    """1 / l (Laplace), 1 / l^2 (Gaussian) or sqrt(2 nu) / l (half-integer)."""
    factors: int = 0
    """nu - 1/2 of a half-integer order."""
    first: int = 0
    """Of a table: the cell of a float32 is its bits >> shift, from `first` on."""
    shift: int = 0
    """Of a table: low bits that are not part of the cell."""
    pieces: Float32[Tensor, "cells 4"] | None = None
    """Of every cell log k where it begins, and its slope, a quadratic of the position in it."""


_RATES = 1e-30, 1e30
"""Rates that a float32 computation can use."""
_BITS = 5, 6, 7, 8, 9
"""Cells per octave to try, as powers of 2."""


def profile_of(kernel: RadialKernel, squares: Variable | None = None) -> Profile | None:
    """Profile of a kernel; None if no table of it is accurate, as for a kernel of compact support.

    Tables of kernels that can change, those that are not frozen dataclasses, are made anew at every call.

    Args:
        kernel: a radial kernel.
        squares: what takes the place of half the squared distance; if it is given, and a table of that is
            accurate, there is none of the distance.
    """
    if type(kernel) is Matern:
        kernel = matern_form(kernel.lengthscale, kernel.nu)
    closed = _closed_form(kernel)
    if closed is not None:
        return closed if _RATES[0] < closed.rate < _RATES[1] else None
    parameters = getattr(type(kernel), "__dataclass_params__", None)
    tabulate = _cached if parameters is not None and parameters.frozen else _tabulated
    return tabulate(kernel, squares)


def _closed_form(kernel: RadialKernel) -> Profile | None:
    if type(kernel) is Laplace:
        return Profile(Form.LAPLACE, 1 / kernel.lengthscale)
    if type(kernel) is Gaussian:
        return Profile(Form.GAUSSIAN, 1 / kernel.lengthscale**2)
    if type(kernel) is HalfInteger:
        return Profile(Form.HALF_INTEGER, kernel.rate, round(kernel.nu - 0.5))
    return None


def _tabulated(kernel: RadialKernel, squares: Variable | None) -> Profile | None:
    """The smallest accurate table of a kernel."""
    distances = (Form.TABLE, DISTANCE) if kernel.sphere_dim is None else (Form.FOLDED_TABLE, ANGLE)
    for form, variable in ([(Form.TABLE_OF_SQUARES, squares)] if squares else []) + [distances]:
        for bits in _BITS:
            pieces = pieces_of(kernel, variable, bits)
            if pieces is not None:
                first = (127 + variable.octaves[0]) << bits
                return Profile(form, first=first, shift=23 - bits, pieces=pieces)
    return None


_cached = lru_cache(maxsize=256)(_tabulated)
