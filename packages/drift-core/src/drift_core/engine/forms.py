"""Radial kernels in the Triton kernels (pairs.py, products.py): their forms, as in pairs.c."""

from typing import no_type_check

import triton
import triton.language as tl

LAPLACE, GAUSSIAN, HALF_INTEGER = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
TABLE, FOLDED_TABLE = tl.constexpr(3), tl.constexpr(4)


@triton.jit
@no_type_check
def log1p(t):
    """log(1 + t) for t >= 0, to 1e-7 relative; `tl.log` has that error absolute."""
    u = 1.0 + t
    bits = u.to(tl.int32, bitcast=True)
    exponent = (bits - 0x3F3504F3) >> 23  # u = 2^exponent v with v in [sqrt 1/2, sqrt 2)
    v = (bits - (exponent << 23)).to(tl.float32, bitcast=True) - 1.0
    f = tl.where(exponent == 0, t, v)
    p = -7.830716258e-2 * f + 1.301909958e-1
    p = p * f - 1.321227883e-1
    p = p * f + 1.416073102e-1
    p = p * f - 1.661034128e-1
    p = p * f + 2.000320609e-1
    p = p * f - 2.500157098e-1
    p = p * f + 3.333330241e-1
    p = p * f - 4.999998832e-1
    p = p * f + 1.0
    whole = (exponent + 0x4B400000).to(tl.float32, bitcast=True) - 12582912.0  # a conversion costs eight adds
    return tl.minimum(p * f + whole * 0.693147181, t, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
@no_type_check
def _half_integer(r, rate, factors):
    """-log k and its slope for nu = factors + 1/2, as `HalfInteger` in kernel/matern.py."""
    a = r * rate
    s = 1.0 + a
    energy = a - log1p(a)
    for factor in range(1, factors):
        order = factor + 0.5
        excess = a * (a / s)
        energy -= log1p(excess * (0.5 / order))
        s = excess + 2.0 * order
    return energy, a / s * rate


@triton.jit
@no_type_check
def _tabulated(r, side, first, cells, shift, pieces, FORM: tl.constexpr):
    """-log k and its slope from a table, as in pairs.h; a folded one is of distances from the nearer pole."""
    far = r < 0.0
    if FORM == FOLDED_TABLE:
        far |= side < 0.0
        cells = cells // 2
    bits = r.to(tl.int32, bitcast=True)
    bits = tl.minimum(tl.maximum(bits, first << shift), ((first + cells) << shift) - 1)
    cell = (bits >> shift) - first + tl.where(far, cells, 0)
    width = ((bits & 0x7F800000) - ((23 - shift) << 23)).to(tl.float32, bitcast=True)
    t = (((bits << (23 - shift)) & 0x007FFFFF) | 0x3F800000).to(tl.float32, bitcast=True) - 1.0
    t = tl.where(r == r, t, r)
    c = pieces + cell * 4
    constant, linear, square = tl.load(c + 1), tl.load(c + 2) * t, tl.load(c + 3) * t * t
    rise = t * width * (constant + linear * 0.5 + square * 0.333333333)
    return tl.where(far, rise, -rise) - tl.load(c), -(constant + linear + square)


@triton.jit
@no_type_check
def kernel(r, near, side, profile, FORM: tl.constexpr):
    """Energies -log k / scale and their slopes; on a sphere `near` is the angle from the pole of the side."""
    rate, factors, first, cells, shift, pieces = profile
    if FORM == LAPLACE:
        return r, tl.full(r.shape, 1.0, tl.float32)
    elif FORM == GAUSSIAN:
        return 0.5 * r * r, r
    elif FORM == HALF_INTEGER:
        return _half_integer(r, rate, factors)
    elif FORM == FOLDED_TABLE:
        return _tabulated(near, side, first, cells, shift, pieces, FORM)
    else:
        return _tabulated(r, side, first, cells, shift, pieces, FORM)


@triton.jit
@no_type_check
def scale(rate, FORM: tl.constexpr):
    """What energies and slopes are to be multiplied by."""
    if FORM <= GAUSSIAN:
        return rate
    else:
        return rate * 0.0 + 1.0
