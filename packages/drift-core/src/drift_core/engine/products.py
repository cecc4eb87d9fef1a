"""Fused scores on products of spheres on a GPU: products.c in Triton. The host's side is
`drift_core.engine.cuda_products`.

The references pass in chunks. For a chunk, `logits` adds up the positions and stores a number for every pair
of it, `merge` updates the softmax sums of the queries, and `directions` finds the angles anew, position by
position. As in pairs.py a program holds N queries, one per thread, and M references at a time, and arrays of
pairs are [M, N]. Points come in the blocks that programs read, [positions, blocks, D + 2, M or N]: the
addresses in a block are constants.
"""

from typing import no_type_check

import triton
import triton.language as tl

from drift_core.engine.forms import kernel, scale

UNROLL = tl.constexpr(4)
_TINY = tl.constexpr(1.2e-38)
"""Smaller numbers are denormal, and have no inverse root."""
RUNTIME = ["positions", "factors", "first", "cells", "shift", "queries", "references"]
"""Integers whose values must not compile anew."""


@triton.jit
@no_type_check
def _chords(x, y, D: tl.constexpr, ORTHANT: tl.constexpr, M: tl.constexpr, N: tl.constexpr):
    """Squared chords between unit vectors along side x and y, 1 / |y|, and sides, as in pairs.h.

    Rows D and D + 1 of the points hold |y| - 1 and 1 / |y|. ORTHANT: all coordinates, and so the sides, are
    positive.
    """
    i, j = tl.arange(0, N)[None, :], tl.arange(0, M)[:, None]
    side = 1.0
    if not ORTHANT:
        dot = tl.zeros([M, N], tl.float32)
        for k in tl.range(0, D, loop_unroll_factor=UNROLL):
            dot += tl.load(y + k * M + j) * tl.load(x + k * N + i)
        side = tl.where(dot < 0, -1.0, 1.0)
    square = tl.zeros([M, N], tl.float32)
    for k in tl.range(0, D, loop_unroll_factor=UNROLL):
        d = tl.load(y + k * M + j) - side * tl.load(x + k * N + i)
        square += d * d
    radial = tl.load(y + D * M + j) - tl.load(x + D * N + i)
    inverse = tl.load(y + (D + 1) * M + j)
    square = (square - radial * radial) * (inverse * tl.load(x + (D + 1) * N + i))
    return tl.where(square < 0, 0.0, square), inverse, side  # keeps NaN


@triton.jit
@no_type_check
def _angle_over_sine(square):
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
def _sphere(x, y, D: tl.constexpr, ORTHANT: tl.constexpr, M: tl.constexpr, N: tl.constexpr):
    """Angles, those from the nearer pole, inverse lengths of the directions y - side x, and sides."""
    square, inverse, side = _chords(x, y, D, ORTHANT, M, N)
    sine_square = square - 0.25 * square * square
    over_sine = tl.where(sine_square > _TINY, tl.math.rsqrt(sine_square), 0.0)
    near = sine_square * over_sine * _angle_over_sine(square)
    angle = near
    if not ORTHANT:
        angle = tl.where(side < 0, 3.14159265 - near, near)
    return angle, near, inverse * over_sine, side


@triton.jit
@no_type_check
def _log_kernel(r, near, side, rate, factors, first, cells, shift, pieces, FORM: tl.constexpr):
    """log k and -d log k / dr."""
    energy, slope = kernel(r, near, side, (rate, factors, first, cells, shift, pieces), FORM)
    unit = scale(rate, FORM)
    return -energy * unit, slope * unit


@triton.jit
@no_type_check
def _weighed(
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
def _queries(block, N: tl.constexpr):
    """Indices of the queries of a program.

    The hint keeps one query per thread: Triton would give a thread four neighbours to load or store their
    pairs at once, and exchange them between threads.
    """
    return tl.max_contiguous(block.to(tl.int64) * N + tl.arange(0, N), [1])


@triton.jit
@no_type_check
def _position(
    x, y, rate, factors, first, cells, shift, pieces,
    FORM: tl.constexpr, DISPLACEMENT: tl.constexpr, PRODUCT: tl.constexpr, ORTHANT: tl.constexpr,
    D: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """Terms of the sum over positions, factors of the directions y - side x, and sides, at a position.

    Terms are logarithms of the kernel of a PRODUCT, else squared angles. In the orthant both these and
    theta / sin(theta) are analytic in the squared chord.
    """
    if PRODUCT:
        angle, near, inverse, side = _sphere(x, y, D, ORTHANT, M, N)
        logit, slope = _log_kernel(angle, near, side, rate, factors, first, cells, shift, pieces, FORM)
        if DISPLACEMENT:
            slope = angle
        return logit, slope * inverse, side
    elif ORTHANT:
        square, inverse, side = _chords(x, y, D, ORTHANT, M, N)
        ratio = _angle_over_sine(square)
        return (square - 0.25 * square * square) * ratio * ratio, ratio * inverse, side
    else:
        angle, near, inverse, side = _sphere(x, y, D, ORTHANT, M, N)
        return angle * angle, angle * inverse, side


@triton.jit
@no_type_check
def _total(
    term, rate, factors, first, cells, shift, pieces,
    FORM: tl.constexpr, DISPLACEMENT: tl.constexpr, PRODUCT: tl.constexpr,
):  # fmt: skip
    """Logits, and slopes over the distances, of sums over all positions."""
    if PRODUCT:
        return term, tl.zeros_like(term) + 1.0
    else:
        r = tl.sqrt(term)
        logit, slope = _log_kernel(r, r, 1.0, rate, factors, first, cells, shift, pieces, FORM)
        if DISPLACEMENT:
            slope = r
        return logit, tl.where(r > 0, slope / r, 0.0)


@triton.jit(do_not_specialize=RUNTIME)
@no_type_check
def logits(
    x, y, positions, rate, factors, first, cells, shift, pieces,
    log_weight, row_stride, column_stride, self_index, queries, references, found, slopes, sums,
    FORM: tl.constexpr, DISPLACEMENT: tl.constexpr, PRODUCT: tl.constexpr, ORTHANT: tl.constexpr,
    WEIGHTED: tl.constexpr, EXCLUDING: tl.constexpr, SLOPES: tl.constexpr,
    D: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """Logits of a tile of pairs in `found` [references, n], and if SLOPES the slopes over the distances.

    Stores the largest logit, the sum of the weights and that of their squares in `sums` [tiles, 3, n].
    """
    block, blocks = tl.program_id(0), tl.num_programs(0)
    tile, tiles = tl.program_id(1).to(tl.int64), tl.num_programs(1)
    i, j, n = _queries(block, N), tile * M + tl.arange(0, M), blocks * N
    term = tl.zeros([M, N], tl.float32)
    error = tl.zeros([M, N], tl.float32)
    for at in range(positions.to(tl.int64)):  # compensated sums (Kahan)
        added, _, _ = _position(
            x + (at * blocks + block) * (D + 2) * N, y + (at * tiles + tile) * (D + 2) * M,
            rate, factors, first, cells, shift, pieces, FORM, DISPLACEMENT, PRODUCT, ORTHANT, D, M, N,
        )  # fmt: skip
        added -= error
        new = term + added
        error = (new - term) - added
        term = new
    logit, slope = _total(term, rate, factors, first, cells, shift, pieces, FORM, DISPLACEMENT, PRODUCT)
    own = i
    if EXCLUDING:
        own = tl.load(self_index + tl.minimum(i, queries - 1))
    logit = _weighed(
        logit, i, j, log_weight, row_stride, column_stride, own, queries, references, WEIGHTED, EXCLUDING
    )
    pair = j[:, None] * n + i[None, :]
    tl.store(found + pair, logit)
    if SLOPES:
        tl.store(slopes + pair, slope)
    largest = tl.max(logit, 0)
    weight = tl.exp(logit - tl.where(largest == float("-inf"), 0.0, largest)[None, :])
    out = sums + tile * 3 * n + i
    tl.store(out, largest)
    tl.store(out + n, tl.sum(weight, 0))
    tl.store(out + 2 * n, tl.sum(weight * weight, 0))


@triton.jit(do_not_specialize=["tiles"])
@no_type_check
def merge(sums, tiles, state, base, T: tl.constexpr, N: tl.constexpr):
    """Add the sums of the tiles [tiles, 3, n] to float64 sums `state` [3, n].

    Stores in `base` [n] the largest logit so far, or 0 if it is -inf.
    """
    i, n = _queries(tl.program_id(0), N), tl.num_programs(0) * N
    before = tl.load(state + i)
    largest = before.to(tl.float32)
    for first in range(0, tiles, T):
        tile = first + tl.arange(0, T)[:, None]
        tops = tl.load(sums + tile * 3 * n + i[None, :], mask=tile < tiles, other=float("-inf"))
        largest = tl.maximum(largest, tl.max(tops, 0))
    known = tl.where(largest == float("-inf"), 0.0, largest)
    factor = tl.exp(before.to(tl.float32) - known).to(tl.float64)
    total = tl.load(state + n + i) * factor
    squares = tl.load(state + 2 * n + i) * (factor * factor)
    for first in range(0, tiles, T):
        tile = first + tl.arange(0, T)[:, None]
        at, inside = sums + tile * 3 * n + i[None, :], tile < tiles
        share = tl.exp(tl.load(at, mask=inside, other=float("-inf")) - known[None, :]).to(tl.float64)
        total += tl.sum(share * tl.load(at + n, mask=inside, other=0.0), 0)
        squares += tl.sum(share * share * tl.load(at + 2 * n, mask=inside, other=0.0), 0)
    tl.store(state + i, largest.to(tl.float64))
    tl.store(state + n + i, total)
    tl.store(state + 2 * n + i, squares)
    tl.store(base + i, known)


@triton.jit(do_not_specialize=[*RUNTIME, "tiles", "share"])
@no_type_check
def directions(
    x, y, tiles, share, rate, factors, first, cells, shift, pieces, weights, sums,
    FORM: tl.constexpr, DISPLACEMENT: tl.constexpr, PRODUCT: tl.constexpr, ORTHANT: tl.constexpr,
    D: tl.constexpr, LETTERS: tl.constexpr, GROUPS: tl.constexpr, RUN: tl.constexpr,
    M: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """Sums of the directions at a position over `share` of the tiles, weighted by `weights` [references, n].

    Adds LETTERS of the coordinates to `sums` [parts, positions, D, n], in float32 over RUN tiles at a time; D
    is a multiple of LETTERS or less. No two programs share an address, so the order is fixed.
    """
    at, positions = tl.program_id(0).to(tl.int64), tl.num_programs(0)
    block, blocks = tl.program_id(1), tl.num_programs(1)
    part, letter = tl.program_id(2).to(tl.int64) // GROUPS, tl.program_id(2) % GROUPS * LETTERS
    i, n = _queries(block, N), blocks * N
    x += (at * blocks + block) * (D + 2) * N
    y += at * tiles * (D + 2) * M
    x_letters, y_letters = x + letter * N, y + letter * M
    row = tl.arange(0, LETTERS)[:, None]
    out = sums + ((part * positions + at) * D + letter + row) * n + i[None, :]
    end = tl.minimum((part + 1) * share, tiles)
    for first_tile in range(part * share, end, RUN):
        along = tl.zeros([LETTERS, N], tl.float32)
        for tile in range(first_tile, tl.minimum(first_tile + RUN, end)):
            _, slope, side = _position(
                x, y + tile * (D + 2) * M, rate, factors, first, cells, shift, pieces,
                FORM, DISPLACEMENT, PRODUCT, ORTHANT, D, M, N,
            )  # fmt: skip
            j = tile * M + tl.arange(0, M)[:, None]
            a = tl.load(weights + j * n + i[None, :]) * slope
            for k in tl.static_range(LETTERS if LETTERS < D else D):
                origin = tl.load(x_letters + k * N + tl.arange(0, N))[None, :]
                to = tl.load(y_letters + (tile * (D + 2) + k) * M + tl.arange(0, M))[:, None] - side * origin
                along = tl.where(row == k, along + tl.sum(a * to, 0)[None, :], along)
        tl.atomic_add(out, along.to(tl.float64), mask=row < D, sem="relaxed")
