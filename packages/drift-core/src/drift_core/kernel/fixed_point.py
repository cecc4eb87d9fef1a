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

_SPARE = 32
"""Further bits of terms that are rounded down thousands of times."""


def gegenbauer_to_cosine(coefficients: Integers, dim: int, bits: int) -> Integers:
    """Rewrite sum_n b_n C_n^(h)(cos t), h = (dim - 1)/2 > 0, as e_0 + 2 sum_m e_m cos(m t).

    C_n^(h)(cos t) = sum_k g_k g_{n-k} cos((n - 2k) t) with g_k = (h)_k / k! (DLMF 18.5.11), where
    g_{k+1} g_{n-k-1} = g_k g_{n-k} (2k + dim - 1) (n - k) / ((k + 1) (2 (n - k) + dim - 3)).
    Every term is positive, so unlike a recurrence in n nothing cancels. Products with small integers take
    time linear in the bits.
    """
    degree = len(coefficients) - 1
    g = [1 << bits]
    for k in range(degree):
        g.append(g[-1] * (2 * k + dim - 1) // (2 * k + 2))
    up = np.arange(degree + 1).astype(object)
    down = 2 * up + (dim - 3)
    terms = (coefficients * np.array(g, dtype=object)) >> (bits - _SPARE)
    result = np.zeros_like(coefficients)
    for k in range(degree // 2 + 1):
        result[: len(terms)] += terms  # those of degrees n = 2k, ..., degree
        rest = slice(k + 2, degree + 1 - k)  # n - k, for n = 2k + 2, ..., degree
        terms = terms[2:] * (up[rest] * (2 * k + dim - 1)) // (down[rest] * (k + 1))
    return np.asarray(result >> _SPARE)


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
    return real, -imag


def _fourier_sum(h: Integers, bits: int) -> Complex:
    """Real and imaginary part of sum_m h_m exp(2 pi i m j / n) for j = 0, ..., n/2, with n = len(h).

    The sums of even and of odd terms are the even and the odd part of one complex sum, half as long.
    """
    real, imag, (cos, sin) = _complex_sum((h[::2], h[1::2]), bits)
    back = -np.arange(len(real) + 1) % len(real)
    real, imag = np.append(real, real[0]), np.append(imag, imag[0])
    even = real + real[back], imag - imag[back]
    odd = imag + imag[back], real[back] - real
    turned = _multiply(odd, (np.append(cos, -cos[0]), np.append(sin, -sin[0])), bits)
    return (even[0] + turned[0]) >> 1, (even[1] + turned[1]) >> 1


def _complex_sum(h: Complex, bits: int) -> tuple[Integers, Integers, Complex]:
    """Real and imaginary part of sum_m h_m exp(2 pi i m j / n) for every j, by radix-2 FFT.

    Also returns the factors exp(pi i j / n).
    """
    real, imag = (part[None, :] for part in h)
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
    return real[:, 0], imag[:, 0], (cos, sin)


def _unit(turn: float, bits: int) -> Complex:
    """exp(i pi turn), for a turn that float64 holds exactly."""
    with mpmath.workprec(bits + 16):
        number = mpmath.expjpi(turn)
        return to_fixed_point([number.real], bits), to_fixed_point([number.imag], bits)


def _multiply(z: Complex, w: Complex, bits: int) -> Complex:
    """Product of complex numbers by three products of integers, which take nearly all the time."""
    (a, b), (c, d) = z, w
    common = c * (a + b)
    return (common - b * (c + d)) >> bits, (common + a * (d - c)) >> bits


def to_fixed_point(numbers: list[Any], bits: int) -> Integers:
    """Round down real numbers (int or mpf) to integers over 2^bits."""
    result = np.empty(len(numbers), dtype=object)
    result[:] = [int(mpmath.floor(mpmath.ldexp(number, bits))) for number in numbers]
    return result
