"""Fused scores on a GPU: pairs.c in Triton. The host's side is `drift_core.engine.cuda`.

A program holds N queries, one per thread, and passes over M references at a time: reductions over references
need no exchange between threads. Arrays of pairs are [M, N]. Points come coordinate by coordinate, padded:
queries [rows, n], references [rows, m], or [rows, m, n] where each query has its own. Sums over a tile are
float32, sums of tiles float64.
"""

from typing import no_type_check

import triton
import triton.language as tl

LAPLACE, GAUSSIAN, HALF_INTEGER = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
OCTAVES = tl.constexpr(3)
UNROLL = tl.constexpr(4)
SPHERE, HYPERBOLOID = tl.constexpr(1), tl.constexpr(2)
_TINY = tl.constexpr(1.2e-38)
"""Smaller numbers are denormal, and have no inverse root."""
_TOGETHER = tl.constexpr(16)
"""Tiles whose sums are float32."""
RUNTIME = ["tiles", "factors", "first", "last", "shift", "queries", "references"]
"""Integers whose values must not compile anew."""


@triton.jit
@no_type_check
def _log1p(t):
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
    return tl.where(t == t, p * f + exponent.to(tl.float32) * 0.693147181, t)


@triton.jit
@no_type_check
def _reference(y, k, i, j, n, m, OWN: tl.constexpr):
    """Row k of references j, [M, 1], or of those of queries i, [M, N]."""
    if OWN:
        return tl.load(y + (k * m + j)[:, None] * n + i[None, :])
    else:
        return tl.load(y + k * m + j)[:, None]


@triton.jit
@no_type_check
def _query(x, k, i, n):
    """Row k of queries i, [1, N]."""
    return tl.load(x + k * n + i)[None, :]


@triton.jit
@no_type_check
def _flat(x, y, i, j, n, m, D: tl.constexpr, OWN: tl.constexpr, M: tl.constexpr, N: tl.constexpr):
    """Distances and inverse lengths of y - x."""
    square = tl.zeros([M, N], tl.float32)
    for k in range(D):
        d = _reference(y, k, i, j, n, m, OWN) - _query(x, k, i, n)
        square += d * d
    return tl.sqrt(square), tl.where(square > _TINY, tl.math.rsqrt(square), 0.0)


@triton.jit
@no_type_check
def chords(
    x, y, i, j, n, m,
    D: tl.constexpr, OWN: tl.constexpr, ORTHANT: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """Squared chords between unit vectors along side x and y, 1 / |y|, and sides, as in pairs.h.

    Rows D and D + 1 of the points hold |y| - 1 and 1 / |y|. ORTHANT: all coordinates, and so the sides, are
    positive.
    """
    side = 1.0
    if not ORTHANT:
        dot = tl.zeros([M, N], tl.float32)
        for k in tl.range(0, D, loop_unroll_factor=UNROLL):
            dot += _reference(y, k, i, j, n, m, OWN) * _query(x, k, i, n)
        side = tl.where(dot < 0, -1.0, 1.0)
    square = tl.zeros([M, N], tl.float32)
    for k in tl.range(0, D, loop_unroll_factor=UNROLL):
        d = _reference(y, k, i, j, n, m, OWN) - side * _query(x, k, i, n)
        square += d * d
    radial = _reference(y, D, i, j, n, m, OWN) - _query(x, D, i, n)
    inverse = _reference(y, D + 1, i, j, n, m, OWN)
    square = (square - radial * radial) * (inverse * _query(x, D + 1, i, n))
    return tl.where(square < 0, 0.0, square), inverse, side  # keeps NaN


@triton.jit
@no_type_check
def angle_over_sine(square):
    """theta / sin(theta) of squared chords up to 2."""
    p = 2.302840839e-5 * square - 1.382919113e-4
    p = p * square + 4.392040122e-4
    p = p * square - 6.065905230e-4
    p = p * square + 1.035720742e-3
    p = p * square + 1.194009070e-3
    p = p * square + 7.272748347e-3
    p = p * square + 3.331172113e-2
    p = p * square + 1.666680555e-1
    return p * square + 1.0


@triton.jit
@no_type_check
def sphere(
    x, y, i, j, n, m,
    D: tl.constexpr, OWN: tl.constexpr, ORTHANT: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """Angles, inverse lengths of the directions y - side x, and sides."""
    square, inverse, side = chords(x, y, i, j, n, m, D, OWN, ORTHANT, M, N)
    sine_square = square - 0.25 * square * square
    over_sine = tl.where(sine_square > _TINY, tl.math.rsqrt(sine_square), 0.0)
    angle = sine_square * over_sine * angle_over_sine(square)
    if not ORTHANT:
        angle = tl.where(side < 0, 3.14159265 - angle, angle)
    return angle, inverse * over_sine, side


@triton.jit
@no_type_check
def _hyperboloid(x, y, i, j, n, m, D: tl.constexpr, OWN: tl.constexpr, M: tl.constexpr, N: tl.constexpr):
    """Distances and inverse lengths of y - x; points are float64, time first.

    sinh^2(r/2) is <y - x, y - x>_L / 4, or (-<x, y>_L - 1) / 2 where that cancels less, between far points.
    """
    end, start = _reference(y, 0, i, j, n, m, OWN), _query(x, 0, i, n)
    time, product = (end - start) * (end - start), end * start
    near = product > time
    square = tl.zeros([M, N], tl.float64) - time
    for k in range(1, D):
        end, start = _reference(y, k, i, j, n, m, OWN), _query(x, k, i, n)
        square += (end - start) * (end - start)
        product -= end * start
    z = tl.where(near, square * 0.25, product * 0.5 - 0.5).to(tl.float32)
    z = tl.where(z < 0, 0.0, z)
    sinh = 2.0 * tl.sqrt(z) * tl.sqrt(1.0 + z)
    return _log1p(2.0 * z + sinh), tl.where(sinh > 0, 1.0 / sinh, 0.0)


@triton.jit
@no_type_check
def _half_integer(r, rate, factors):
    """log k and -d log k / dr for nu = factors + 1/2, as `HalfInteger` in kernel/matern.py."""
    a = r * rate
    s = 1.0 + a
    log = _log1p(a) - a
    for factor in range(1, factors):
        order = factor + 0.5
        excess = a * (a / s)
        log += _log1p(excess * (0.5 / order))
        s = excess + 2.0 * order
    return log, a / s * rate


@triton.jit
@no_type_check
def _tabulated(r, rate, first, last, shift, cubics, FORM: tl.constexpr):
    """log k and -d log k / dr from a table, as in pairs.c; `last` is the last cell, counted from 0."""
    if FORM == OCTAVES:
        bits = r.to(tl.int32, bitcast=True)
        cell = bits >> shift
        low = bits & ((1 << shift) - 1)
        position = (0x3F800000 | (low << (23 - shift))).to(tl.float32, bitcast=True) - 1.0
        position = tl.where(cell < first, 0.0, position)
        position = tl.where(r == r, position, r)
        cell = tl.minimum(tl.maximum(cell - first, 0), last)
    else:
        u = r * rate
        cell = tl.minimum(tl.where(r == r, u, 0.0), last.to(tl.float32)).to(tl.int32)
        position = u - cell.to(tl.float32)
    c = cubics + cell * 8
    log = (tl.load(c + 3) * position + tl.load(c + 2)) * position + tl.load(c + 1)
    slope = (tl.load(c + 7) * position + tl.load(c + 6)) * position + tl.load(c + 5)
    return log * position + tl.load(c), -(slope * position + tl.load(c + 4))


@triton.jit
@no_type_check
def log_kernel(r, rate, factors, first, last, shift, cubics, FORM: tl.constexpr):
    """log k and -d log k / dr."""
    if FORM == LAPLACE:
        return r * -rate, tl.zeros_like(r) + rate
    elif FORM == GAUSSIAN:
        return r * r * (-0.5 * rate), r * rate
    elif FORM == HALF_INTEGER:
        return _half_integer(r, rate, factors)
    else:
        return _tabulated(r, rate, first, last, shift, cubics, FORM)


@triton.jit
@no_type_check
def weighed(
    logit, i, j, log_weight, row_stride, column_stride, own, queries, references,
    WEIGHTED: tl.constexpr, EXCLUDING: tl.constexpr,
):  # fmt: skip
    """Logits with the log-weights, without the excluded pairs and the padding."""
    if WEIGHTED:
        row, column = tl.minimum(i, queries - 1), tl.minimum(j, references - 1)
        logit += tl.load(log_weight + row[None, :] * row_stride + column[:, None] * column_stride)
    if EXCLUDING:
        logit = tl.where(j[:, None] == own[None, :], float("-inf"), logit)
    return tl.where(j[:, None] < references, logit, float("-inf"))


@triton.jit
@no_type_check
def _pairs(
    x, y, i, j, n, m, rate, factors, first, last, shift, cubics,
    log_weight, row_stride, column_stride, own, queries, references,
    GEOMETRY: tl.constexpr, FORM: tl.constexpr, DISPLACEMENT: tl.constexpr, WEIGHTED: tl.constexpr,
    EXCLUDING: tl.constexpr, D: tl.constexpr, OWN: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """Logits, slopes over the lengths of the directions y - side x, and sides."""
    if GEOMETRY == SPHERE:
        r, inverse, side = sphere(x, y, i, j, n, m, D, OWN, False, M, N)
    elif GEOMETRY == HYPERBOLOID:
        r, inverse = _hyperboloid(x, y, i, j, n, m, D, OWN, M, N)
        side = 1.0
    else:
        r, inverse = _flat(x, y, i, j, n, m, D, OWN, M, N)
        side = 1.0
    logit, slope = log_kernel(r, rate, factors, first, last, shift, cubics, FORM)
    if DISPLACEMENT:
        slope = r
    logit = weighed(
        logit, i, j, log_weight, row_stride, column_stride, own, queries, references, WEIGHTED, EXCLUDING
    )
    return logit, slope * inverse, side


@triton.jit
@no_type_check
def _direction(x, y, k, i, j, n, m, a, side, GEOMETRY: tl.constexpr, OWN: tl.constexpr):
    """Row k of sum_j a (y - side x), [N]."""
    at = _query(x, k, i, n)
    if GEOMETRY == SPHERE:
        at = side * at
    return tl.sum(a * (_reference(y, k, i, j, n, m, OWN) - at).to(tl.float32), 0)


@triton.jit(do_not_specialize=RUNTIME)
@no_type_check
def softmax_sums(
    x, y, n, m, tiles, rate, factors, first, last, shift, cubics,
    log_weight, row_stride, column_stride, self_index, queries, references, sums, directions,
    GEOMETRY: tl.constexpr, FORM: tl.constexpr, DISPLACEMENT: tl.constexpr, WEIGHTED: tl.constexpr,
    EXCLUDING: tl.constexpr, D: tl.constexpr, OWN: tl.constexpr, ALONG: tl.constexpr,
    M: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """Online softmax over `tiles` tiles of references, from program 1's part on.

    Stores the largest logit, the sum of the weights and that of their squares in `sums` [parts, 3, n], and,
    if ALONG, the sums of the directions in `directions` [parts, D, n]; then D is at most 4.
    """
    n, m = n.to(tl.int64), m.to(tl.int64)
    i = tl.program_id(0).to(tl.int64) * N + tl.arange(0, N)
    part = tl.program_id(1).to(tl.int64)
    own = i
    if EXCLUDING:
        own = tl.load(self_index + tl.minimum(i, queries - 1))
    largest = tl.full([N], float("-inf"), tl.float32)
    zero = tl.zeros([N], tl.float64)
    total, squares, along0, along1, along2, along3 = zero, zero, zero, zero, zero, zero
    end = tl.minimum((part + 1) * tiles, m // M)
    for first_tile in range(part * tiles, end, _TOGETHER):
        before = largest
        none = tl.zeros([N], tl.float32)
        t, s, a0, a1, a2, a3 = none, none, none, none, none, none
        for tile in range(first_tile, tl.minimum(first_tile + _TOGETHER, end)):
            j = tile * M + tl.arange(0, M)
            logit, slope, side = _pairs(
                x, y, i, j, n, m, rate, factors, first, last, shift, cubics,
                log_weight, row_stride, column_stride, own, queries, references,
                GEOMETRY, FORM, DISPLACEMENT, WEIGHTED, EXCLUDING, D, OWN, M, N,
            )  # fmt: skip
            new = tl.maximum(largest, tl.max(logit, 0))
            base = tl.where(new == float("-inf"), 0.0, new)
            factor = tl.exp(largest - base)
            largest = new
            weight = tl.exp(logit - base[None, :])
            t = t * factor + tl.sum(weight, 0)
            s = s * (factor * factor) + tl.sum(weight * weight, 0)
            if ALONG:
                a = weight * slope
                a0 = a0 * factor + _direction(x, y, 0, i, j, n, m, a, side, GEOMETRY, OWN)
                if D > 1:
                    a1 = a1 * factor + _direction(x, y, 1, i, j, n, m, a, side, GEOMETRY, OWN)
                if D > 2:
                    a2 = a2 * factor + _direction(x, y, 2, i, j, n, m, a, side, GEOMETRY, OWN)
                if D > 3:
                    a3 = a3 * factor + _direction(x, y, 3, i, j, n, m, a, side, GEOMETRY, OWN)
        change = tl.exp(before - tl.where(largest == float("-inf"), 0.0, largest)).to(tl.float64)
        total = total * change + t.to(tl.float64)
        squares = squares * (change * change) + s.to(tl.float64)
        along0 = along0 * change + a0.to(tl.float64)
        along1 = along1 * change + a1.to(tl.float64)
        along2 = along2 * change + a2.to(tl.float64)
        along3 = along3 * change + a3.to(tl.float64)
    out = sums + part * 3 * n + i
    tl.store(out, largest.to(tl.float64))
    tl.store(out + n, total)
    tl.store(out + 2 * n, squares)
    if ALONG:
        out = directions + part * D * n + i
        tl.store(out, along0)
        if D > 1:
            tl.store(out + n, along1)
        if D > 2:
            tl.store(out + 2 * n, along2)
        if D > 3:
            tl.store(out + 3 * n, along3)


@triton.jit(do_not_specialize=RUNTIME)
@no_type_check
def direction_sums(
    x, y, n, m, tiles, rate, factors, first, last, shift, cubics,
    log_weight, row_stride, column_stride, self_index, queries, references, largest, directions,
    GEOMETRY: tl.constexpr, FORM: tl.constexpr, DISPLACEMENT: tl.constexpr, WEIGHTED: tl.constexpr,
    EXCLUDING: tl.constexpr, D: tl.constexpr, OWN: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """Sums of the directions where `largest` [n], the largest logit, is known.

    Adds them to `directions` [parts, D, n]. No two programs share an address, so the order is fixed.
    """
    n, m = n.to(tl.int64), m.to(tl.int64)
    i = tl.program_id(0).to(tl.int64) * N + tl.arange(0, N)
    part = tl.program_id(1).to(tl.int64)
    own = i
    if EXCLUDING:
        own = tl.load(self_index + tl.minimum(i, queries - 1))
    base = tl.load(largest + i)
    for tile in range(part * tiles, tl.minimum((part + 1) * tiles, m // M)):
        j = tile * M + tl.arange(0, M)
        logit, slope, side = _pairs(
            x, y, i, j, n, m, rate, factors, first, last, shift, cubics,
            log_weight, row_stride, column_stride, own, queries, references,
            GEOMETRY, FORM, DISPLACEMENT, WEIGHTED, EXCLUDING, D, OWN, M, N,
        )  # fmt: skip
        a = tl.exp(logit - base[None, :]) * slope
        for k in range(D):
            row = _direction(x, y, k, i, j, n, m, a, side, GEOMETRY, OWN)
            tl.atomic_add(directions + (part * D + k) * n + i, row.to(tl.float64), sem="relaxed")
