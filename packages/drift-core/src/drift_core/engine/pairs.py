"""Fused scores on a GPU: pairs.c in Triton. The host's side is `drift_core.engine.cuda`.

A program holds N queries, a few per thread, and passes over M references at a time: sums over references need
no exchange between threads. Arrays of pairs are [M, N]. Points come coordinate by coordinate: queries [D, n],
references [D, m], padded to full tiles, or [D, m, n] where each query has its own. On the sphere row D is
their length less 1.

A pair has a float32 energy, -log k over a scale, and the weight 2^(-octaves energy - base). The base of a
query follows its largest weight, but only when one exceeds 2^`_SLACK` (as in FlashAttention 4): sums are
rarely rescaled, and each row of a tile adds to sums of its own, by one multiply-add. Sums of a few tiles are
float32, sums of those float64.
"""

from typing import no_type_check

import triton
import triton.language as tl

from drift_core.engine.distances import (
    HYPERBOLOID,
    SMALL,
    SPHERE,
    angle_of,
    difference,
    hyperbolic,
    load_queries,
    load_query,
    load_reference,
    load_references,
    lorentz_of_few,
    lorentz_of_many,
    square_of_few,
    square_of_many,
)
from drift_core.engine.forms import kernel, scale

_LOWEST = tl.constexpr(-1e38)
"""The base before the first weight; finite, so that differences of bases are."""
_SLACK = tl.constexpr(8.0)
"""Octaves by which a weight may exceed 1."""
_TOGETHER = tl.constexpr(64)
"""Tiles whose sums are float32."""
_LOG2E = tl.constexpr(1.44269504)
RUNTIME = ["n", "references", "tiles", "parts", "factors", "first", "cells", "shift"]
"""Integers whose values must not compile anew."""


@triton.jit
@no_type_check
def _pairs(
    points, i, tile, n, m, references, profile, weights, own,
    GEOMETRY: tl.constexpr, FORM: tl.constexpr, DISPLACEMENT: tl.constexpr, WEIGHTED: tl.constexpr,
    EXCLUDING: tl.constexpr, D: tl.constexpr, OWN: tl.constexpr, M: tl.constexpr,
):  # fmt: skip
    """Energies, slopes over the lengths of directions; sides (sphere) or sinh^2(r/2) (hyperboloid)."""
    x, y, half_x, half_y = points
    j, aside = tile * M + tl.arange(0, M), 1.0
    if GEOMETRY == HYPERBOLOID:
        if D <= SMALL:
            square, product, near = lorentz_of_few(half_x, half_y, D)
        else:
            square, product, near = lorentz_of_many(half_x, half_y, i, j, n, m, D, OWN)
        r, inverse, aside = hyperbolic(square, product, near)
        near = r
    else:
        if D <= SMALL:
            square, aside = square_of_few(x, y, GEOMETRY, D)
        else:
            square, aside = square_of_many(x, y, i, j, n, m, GEOMETRY, D, OWN)
        if GEOMETRY == SPHERE:
            r, near, inverse = angle_of(square, aside)
        else:
            inverse = tl.math.rsqrt(square)
            r = square * inverse
            near = r
    energy, slope = kernel(r, near, aside, profile, FORM)
    if DISPLACEMENT:
        slope = r
    if WEIGHTED:
        log_weight, row_stride, column_stride = weights
        column = tl.minimum(j, references - 1).to(tl.int64)
        weight = tl.load(log_weight + i[None, :] * row_stride + column[:, None] * column_stride)
        energy -= weight * (1.0 / scale(profile[0], FORM))
    if EXCLUDING:
        energy = tl.where(j[:, None] == own[None, :], float("inf"), energy)
    if (tile + 1) * M > references:
        energy = tl.where(j[:, None] < references, energy, float("inf"))
    return energy, slope * inverse, aside


@triton.jit
@no_type_check
def _direction(x, y, k, aside, GEOMETRY: tl.constexpr):
    """Row k of y - side x; on the hyperboloid row 0 is sinh^2(r/2) = -<y - x, x>_L / 2, the normal part."""
    if GEOMETRY == HYPERBOLOID and k == 0:
        return aside
    else:
        return difference(x[k], y[k], aside, GEOMETRY)


@triton.jit
@no_type_check
def _rescaled(sums, factor):
    """Sums of weights, of their squares and of directions, relative to another base."""
    return [sums[0] * factor, sums[1] * (factor * factor)] + [one * factor for one in sums[2:]]


@triton.jit(do_not_specialize=RUNTIME)
@no_type_check
def softmax_sums(
    x, y, half_x, half_y, n, references, tiles, rate, factors, first, cells, shift, pieces,
    log_weight, row_stride, column_stride, self_index, sums,
    GEOMETRY: tl.constexpr, FORM: tl.constexpr, DISPLACEMENT: tl.constexpr, WEIGHTED: tl.constexpr,
    EXCLUDING: tl.constexpr, D: tl.constexpr, OWN: tl.constexpr, ALONG: tl.constexpr,
    M: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """Online softmax over `tiles` tiles of references, from program 1's part on.

    Stores in `sums` [parts, 3 + D, n] the base, the sum of the weights, that of their squares and, if ALONG,
    those of the directions; then D is small.
    """
    n, m = n.to(tl.int64), tl.cdiv(references, M).to(tl.int64) * M
    profile, weights = (rate, factors, first, cells, shift, pieces), (log_weight, row_stride, column_stride)
    octaves = scale(rate, FORM) * _LOG2E
    index, part = tl.program_id(0).to(tl.int64) * N + tl.arange(0, N), tl.program_id(1)
    i = tl.minimum(index, n - 1)
    own = tl.load(self_index + i) if EXCLUDING else i
    at, half_at = load_queries(x, i, n, GEOMETRY, D), load_queries(half_x, i, n, GEOMETRY, D)
    base = tl.full([N], _LOWEST, tl.float32)
    sums64 = [tl.zeros([N], tl.float64)] * (2 + D * ALONG)
    end = tl.minimum((part + 1) * tiles, tl.cdiv(references, M))
    for start in range(part * tiles, end, _TOGETHER):
        sums32 = [tl.zeros([M, N], tl.float32)] * (2 + D * ALONG)
        for tile in range(start, tl.minimum(start + _TOGETHER, end)):
            j = tile * M + tl.arange(0, M)
            to = load_references(y, i, j, n, m, GEOMETRY, D, OWN)
            half_to = load_references(half_y, i, j, n, m, GEOMETRY, D, OWN)
            energy, slope, aside = _pairs(
                (at, to, half_at, half_to), i, tile, n, m, references, profile, weights, own,
                GEOMETRY, FORM, DISPLACEMENT, WEIGHTED, EXCLUDING, D, OWN, M,
            )  # fmt: skip
            peak = -octaves * tl.min(energy, 0)
            higher = peak - base > _SLACK
            if tl.max(higher.to(tl.int32), 0) > 0:
                raised = tl.where(higher, peak, base)
                factor = tl.exp2(base - raised)
                base = raised
                sums32, sums64 = _rescaled(sums32, factor[None, :]), _rescaled(sums64, factor.to(tl.float64))
            weight = tl.exp2(-octaves * energy - base[None, :])
            sums32 = _added(sums32, weight, slope, at, to, aside, GEOMETRY, D, ALONG)
        sums64 = _merged(sums64, sums32, 2 + D * ALONG)
    out, known = sums + part * ((3 + D) * n) + index, index < n
    tl.store(out, base.to(tl.float64), known)
    for k in tl.static_range(2 + D * ALONG):
        tl.store(out + (1 + k) * n, sums64[k], known)


@triton.jit
@no_type_check
def _added(sums, weight, slope, x, y, aside, GEOMETRY: tl.constexpr, D: tl.constexpr, ALONG: tl.constexpr):
    """Sums of weights, of their squares and of directions, row by row of a tile."""
    added = [sums[0] + weight, sums[1] + weight * weight]
    if ALONG:
        a = weight * slope
        for k in tl.static_range(D):
            added += [sums[2 + k] + a * _direction(x, y, k, aside, GEOMETRY)]
    return added


@triton.jit
@no_type_check
def _merged(sums64, sums32, COUNT: tl.constexpr):
    """Sums over the rows of tiles, in float64."""
    merged = []
    for k in tl.static_range(COUNT):
        merged += [sums64[k] + tl.sum(sums32[k], 0).to(tl.float64)]
    return merged


@triton.jit(do_not_specialize=RUNTIME)
@no_type_check
def direction_sums(
    x, y, half_x, half_y, n, references, tiles, rate, factors, first, cells, shift, pieces,
    log_weight, row_stride, column_stride, self_index, sums,
    GEOMETRY: tl.constexpr, FORM: tl.constexpr, DISPLACEMENT: tl.constexpr, WEIGHTED: tl.constexpr,
    EXCLUDING: tl.constexpr, D: tl.constexpr, OWN: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """Adds the sums of the directions of many dimensions to `sums`, which holds zeros in these rows.

    No two programs share an address, so the order is fixed.
    """
    n, m = n.to(tl.int64), tl.cdiv(references, M).to(tl.int64) * M
    profile, weights = (rate, factors, first, cells, shift, pieces), (log_weight, row_stride, column_stride)
    octaves = scale(rate, FORM) * _LOG2E
    index, part = tl.program_id(0).to(tl.int64) * N + tl.arange(0, N), tl.program_id(1)
    i, known = tl.minimum(index, n - 1), index < n
    own = tl.load(self_index + i) if EXCLUDING else i
    out = sums + part * ((3 + D) * n) + i
    base = tl.load(out).to(tl.float32)
    for tile in range(part * tiles, tl.minimum((part + 1) * tiles, tl.cdiv(references, M))):
        energy, slope, aside = _pairs(
            (x, y, half_x, half_y), i, tile, n, m, references, profile, weights, own,
            GEOMETRY, FORM, DISPLACEMENT, WEIGHTED, EXCLUDING, D, OWN, M,
        )  # fmt: skip
        a = tl.exp2(-octaves * energy - base[None, :]) * slope
        if GEOMETRY == HYPERBOLOID:
            tl.atomic_add(out + 3 * n, tl.sum(a * aside, 0).to(tl.float64), known, sem="relaxed")
        j = tile * M + tl.arange(0, M)
        for k in range(1 if GEOMETRY == HYPERBOLOID else 0, D):
            d = difference(load_query(x, k, i, n), load_reference(y, k, i, j, n, m, OWN), aside, GEOMETRY)
            tl.atomic_add(out + (3 + k) * n, tl.sum(a * d, 0).to(tl.float64), known, sem="relaxed")


@triton.jit
@no_type_check
def _over_parts(sums, row, top, index, n, parts, D: tl.constexpr):
    """A row of `sums` over all parts, relative to the base `top`; row 2 holds squares."""
    total = tl.zeros(top.shape, tl.float64)
    for part in range(parts):
        of_part = sums + part * ((3 + D) * n) + index
        share = tl.exp2(tl.load(of_part, index < n) - top)
        share *= tl.where(row == 2, share, 1.0)
        total += share * tl.load(of_part + row * n, index < n)
    return total


@triton.jit(do_not_specialize=RUNTIME)
@no_type_check
def scores(
    x, sums, n, parts, rate, log_density, gradient, sample_size, GEOMETRY: tl.constexpr, FORM: tl.constexpr,
    DISPLACEMENT: tl.constexpr, GRADIENT: tl.constexpr, D: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """Log-densities [n], tangent gradients [n, D] and sample sizes [n] from the sums of parts."""
    n = n.to(tl.int64)
    index = tl.program_id(0).to(tl.int64) * N + tl.arange(0, N)
    i, known = tl.minimum(index, n - 1), index < n
    top = tl.full([N], _LOWEST, tl.float64)
    for part in range(parts):
        top = tl.maximum(top, tl.load(sums + part * ((3 + D) * n) + i))
    total = _over_parts(sums, 1, top, index, n, parts, D)
    squares = _over_parts(sums, 2, top, index, n, parts, D)
    tl.store(log_density + index, (top * 0.6931471805599453 + tl.log(total)).to(tl.float32), known)
    tl.store(sample_size + index, (total * total / squares).to(tl.float32), known)
    if GRADIENT:
        over_total = tl.where(total == 0, 0.0, (1.0 if DISPLACEMENT else scale(rate, FORM)) / total)
        first: tl.constexpr = 1 if GEOMETRY == HYPERBOLOID else 0
        product, length = tl.zeros([N], tl.float64), tl.zeros([N], tl.float64)
        for k in range(first, D):
            at = tl.load(x + k * n + i).to(tl.float64)
            product += at * _over_parts(sums, 3 + k, top, index, n, parts, D)
            length += at * at
        normal = 0.0 * length
        if GEOMETRY == SPHERE:
            normal = -product / length
        if GEOMETRY == HYPERBOLOID:
            normal = -2.0 * _over_parts(sums, 3, top, index, n, parts, D)
            time = (product + normal * length) / tl.sqrt(1.0 + length)
            tl.store(gradient + index * D, (time * over_total).to(tl.float32), known)
        for k in range(first, D):
            u = _over_parts(sums, 3 + k, top, index, n, parts, D) + normal * tl.load(x + k * n + i)
            tl.store(gradient + index * D + k, (u * over_total).to(tl.float32), known)
