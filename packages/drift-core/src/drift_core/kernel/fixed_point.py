"""Cosine series in fixed-point arithmetic, precise enough for k(pi) = 1e-50 with k(0) = 1.

Numbers are arrays of Python integers v that stand for v / 2^bits; numpy applies the operations
elementwise. Products are rounded down, an error of one unit each.
"""

from typing import Any

import mpmath
import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.object_]
Complex = tuple[Integers, Integers]


def gegenbauer_to_cosine(coefficients: Integers, dim: int, bits: int) -> Integers:
    """Rewrite sum_n b_n C_n^(h)(cos t), h = (dim - 1)/2 > 0, as e_0 + 2 sum_m e_m cos(m t).

    C_n^(h)(cos t) = sum_k g_k g_{n-k} cos((n - 2k) t) with g_k = (h)_k / k! (DLMF 18.5.11).
    Every term is positive, so unlike a recurrence in n nothing cancels.
    """
    degree = len(coefficients) - 1
    g = [1 << bits]
    for k in range(degree):
        g.append(g[-1] * (2 * k + dim - 1) // (2 * k + 2))
    factors = np.array(g, dtype=object)
    result = np.zeros_like(coefficients)
    for k in range(degree // 2 + 1):
        terms = (coefficients[2 * k :] * factors[k : degree + 1 - k]) >> bits
        result[: degree + 1 - 2 * k] += terms * factors[k]
    return np.asarray(result >> bits)


def value_and_slope(cosine: Integers, intervals: int, bits: int) -> Complex:
    """Return f = e_0 + 2 sum_m e_m cos(m t) and df/dt at t = pi j / intervals, j = 0, ..., intervals.

    `intervals` is a power of two of at least 2 len(cosine). With h_m = (1 + m) e_|m|, one Fourier
    sum over m of both signs gives f in its real part and -df/dt in its imaginary part.
    """
    m = np.arange(len(cosine)).astype(object)
    h = np.zeros(2 * intervals, dtype=object)
    h[: len(cosine)] = (1 + m) * cosine
    h[len(h) - len(cosine) + 1 :] = ((1 - m) * cosine)[:0:-1]
    real, imag = _fourier_sum(h, bits)
    return real[: intervals + 1], -imag[: intervals + 1]


def _fourier_sum(h: Integers, bits: int) -> Complex:
    """Real and imaginary part of sum_m h_m exp(2 pi i m j / len(h)) for every j, by radix-2 FFT."""
    real, imag = h[None, :], np.zeros_like(h)[None, :]
    cos, sin = _unit(0.0, bits)
    while real.shape[1] > 1:
        half = real.shape[1] // 2
        odd = _multiply((real[:, half:], imag[:, half:]), (cos[:, None], sin[:, None]), bits)
        real, imag = (
            np.concatenate([even[:, :half] + part, even[:, :half] - part])
            for even, part in zip((real, imag), odd, strict=True)
        )
        # The factors exp(i pi k / len(real)) of the next stage: the present ones and those in between.
        between = _multiply((cos, sin), _unit(1 / len(real), bits), bits)
        cos, sin = (
            np.stack([present, new], axis=1).ravel() for present, new in zip((cos, sin), between, strict=True)
        )
    return real[:, 0], imag[:, 0]


def _unit(turn: float, bits: int) -> Complex:
    """exp(i pi turn), for a turn that float64 holds exactly."""
    with mpmath.workprec(bits + 16):
        number = mpmath.expjpi(turn)
        return to_fixed_point([number.real], bits), to_fixed_point([number.imag], bits)


def _multiply(z: Complex, w: Complex, bits: int) -> Complex:
    return (z[0] * w[0] - z[1] * w[1]) >> bits, (z[0] * w[1] + z[1] * w[0]) >> bits


def to_fixed_point(numbers: list[Any], bits: int) -> Integers:
    """Round down real numbers (int or mpf) to integers over 2^bits."""
    result = np.empty(len(numbers), dtype=object)
    result[:] = [int(mpmath.floor(mpmath.ldexp(number, bits))) for number in numbers]
    return result
