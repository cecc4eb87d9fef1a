"""Distances and directions of pairs in the Triton kernels (pairs.py), as in pairs.h."""

from typing import no_type_check

import triton
import triton.language as tl

from drift_core.engine.forms import log1p

SPHERE, HYPERBOLOID = tl.constexpr(1), tl.constexpr(2)
SMALL = tl.constexpr(4)
"""Dimensions up to it keep coordinates and sums of directions in registers."""
_TINY = tl.constexpr(1.2e-38)
"""The least square of a length; smaller numbers are denormal, and have no inverse root."""
_COINCIDENT = tl.constexpr(1e-18)
"""The same on the sphere, where it is above the rounding of 1e-14, the square of a radial difference."""


@triton.jit
@no_type_check
def load_query(x, k, i, n):
    """Row k of queries i, [1, N]."""
    return tl.load(x + k * n + i)[None, :]


@triton.jit
@no_type_check
def load_reference(y, k, i, j, n, m, OWN: tl.constexpr):
    """Row k of references j, [M, 1], or of those of queries i, [M, N]."""
    if OWN:
        return tl.load(y + (k * m + j)[:, None] * n + i[None, :])
    else:
        return tl.load(y + k * m + j)[:, None]


@triton.jit
@no_type_check
def load_queries(x, i, n, GEOMETRY: tl.constexpr, D: tl.constexpr):
    """Queries i as a list of rows; of many dimensions, as they are in memory."""
    if D > SMALL:
        return x
    else:
        rows = []
        for k in tl.static_range(D + 1 if GEOMETRY == SPHERE else D):
            rows += [load_query(x, k, i, n)]
        return rows


@triton.jit
@no_type_check
def load_references(y, i, j, n, m, GEOMETRY: tl.constexpr, D: tl.constexpr, OWN: tl.constexpr):
    """The same of references j."""
    if D > SMALL:
        return y
    else:
        rows = []
        for k in tl.static_range(D + 1 if GEOMETRY == SPHERE else D):
            rows += [load_reference(y, k, i, j, n, m, OWN)]
        return rows


@triton.jit
@no_type_check
def difference(x, y, side, GEOMETRY: tl.constexpr):
    """y - side x."""
    if GEOMETRY == SPHERE:
        return y - side * x
    else:
        return y - x


@triton.jit
@no_type_check
def _side(dot):
    """1 with the sign of an inner product: the direction away from -y is accurate beyond a right angle."""
    return ((dot.to(tl.int32, bitcast=True) & -0x80000000) | 0x3F800000).to(tl.float32, bitcast=True)


@triton.jit
@no_type_check
def _radial(x, y):
    """Minus the square of the difference of two lengths: float32 vectors are not exactly of length 1."""
    d = y - x
    return -d * d + _COINCIDENT


@triton.jit
@no_type_check
def square_of_few(x, y, GEOMETRY: tl.constexpr, D: tl.constexpr):
    """|y - side x|^2 and sides, of few dimensions."""
    square, side = tl.full([1, 1], _TINY, tl.float32), 1.0
    if GEOMETRY == SPHERE:
        dot = x[0] * y[0]
        for k in tl.static_range(1, D):
            dot += x[k] * y[k]
        side, square = _side(dot), _radial(x[D], y[D])
    for k in tl.static_range(D):
        d = difference(x[k], y[k], side, GEOMETRY)
        square += d * d
    return square, side


@triton.jit
@no_type_check
def square_of_many(x, y, i, j, n, m, GEOMETRY: tl.constexpr, D: tl.constexpr, OWN: tl.constexpr):
    """|y - side x|^2 and sides, of many dimensions."""
    square, side = tl.full([j.shape[0], i.shape[0]], _TINY, tl.float32), 1.0
    if GEOMETRY == SPHERE:
        dot = 0.0 * square
        for k in range(D):
            dot += load_query(x, k, i, n) * load_reference(y, k, i, j, n, m, OWN)
        side, square = _side(dot), _radial(load_query(x, D, i, n), load_reference(y, D, i, j, n, m, OWN))
    for k in range(D):
        d = difference(load_query(x, k, i, n), load_reference(y, k, i, j, n, m, OWN), side, GEOMETRY)
        square += d * d
    return square, side


@triton.jit
@no_type_check
def angle_of(square, side):
    """Angles, also from the nearer pole, and inverse lengths of y - side x projected on the tangent space.

    The chord, sqrt(square), is twice the sine of half an angle, with cosine c. That angle is
    chord arccos(c) / sqrt(1 - c^2): a polynomial on [cos(pi/4), 1], to 7e-8.
    """
    cosine_square = 1.0 - 0.25 * square
    over_chord, over_cosine = tl.math.rsqrt(tl.abs(square)), tl.math.rsqrt(cosine_square)
    c = cosine_square * over_cosine
    p = 3.61455e-2 * c - 1.9875831e-1
    p = p * c + 5.1305676e-1
    p = p * c - 9.0774193e-1
    p = p * c + 1.55729805
    near = square * over_chord * p
    return side * near + (1.57079633 - 1.57079633 * side), near, over_chord * over_cosine


@triton.jit
@no_type_check
def lorentz_of_few(x, y, D: tl.constexpr):
    """<y - x, y - x>_L, -<x, y>_L, and whether the first cancels less, of few dimensions, time first."""
    d, product = y[0] - x[0], y[0] * x[0]
    square = -d * d
    near = product > -square
    for k in tl.static_range(1, D):
        square += (y[k] - x[k]) * (y[k] - x[k])
        product -= y[k] * x[k]
    return square, product, near


@triton.jit
@no_type_check
def lorentz_of_many(x, y, i, j, n, m, D: tl.constexpr, OWN: tl.constexpr):
    """The same, of many dimensions."""
    end, start = load_reference(y, 0, i, j, n, m, OWN), load_query(x, 0, i, n)
    square, product = -(end - start) * (end - start), end * start
    near = product > -square
    for k in range(1, D):
        end, start = load_reference(y, k, i, j, n, m, OWN), load_query(x, k, i, n)
        square += (end - start) * (end - start)
        product -= end * start
    return square, product, near


@triton.jit
@no_type_check
def hyperbolic(square, product, near):
    """Distances, inverse lengths of y - x on the tangent space, and z = sinh^2(r/2).

    z is <y - x, y - x>_L / 4, or (-<x, y>_L - 1) / 2, of which one is accurate. The arguments are of x / 2
    and y / 2. Then sinh(r) = 2 sqrt(z (1 + z)), and exp(r) = 1 + 2 z + sinh(r).
    """
    z = tl.where(near, square, 2.0 * product - 0.5).to(tl.float32)
    z = tl.maximum(z, _TINY, propagate_nan=tl.PropagateNan.ALL)
    inverse = tl.math.rsqrt(z) * tl.math.rsqrt(1.0 + z)
    return log1p(2.0 * (z + (1.0 + z) * (z * inverse))), 0.5 * inverse, z
