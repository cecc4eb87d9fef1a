"""What the engine is claimed to do, beside what was measured."""

from collections.abc import Callable
from typing import NamedTuple

from benchmarks.fields import LAPLACE, LINEAR, NEAREST, PAIRWISE, SPECTRAL
from benchmarks.points import AUTOGRAD, KEOPS, LOOP, SCORE, TORCH
from benchmarks.report import Measured, Report, as_time

_N, _LARGE = 4096, 65536
"""Sizes n = m that claims are about."""
Number = Callable[[Report], float]
"""A number computed from a report; raises KeyError if it was not measured."""


class Claim(NamedTuple):
    """Bounds on a number."""

    text: str
    number: Number
    at_least: float = 0.0
    at_most: float = float("inf")

    def row(self, report: Report) -> str | None:
        """Row of the table: the claim, its bound, what was measured; None if it was not measured."""
        try:
            value = self.number(report)
        except KeyError:
            return None
        bound = f"at least {self.at_least:g}" if self.at_least else f"at most {self.at_most:g}"
        verdict = "holds" if self.at_least <= value <= self.at_most else "fails"
        return f"| {self.text} | {bound} | {value:,.2f} | {verdict} |"


def _find(report: Report, group: str, candidate: str, n: int | None = None) -> Measured:
    """Measurements of a candidate in the case of n queries, or in the first case of the group."""
    for result in report.cases:
        if result.group == group and n in (None, result.sizes["n"]) and candidate in result.candidates:
            return result.candidates[candidate]
    raise KeyError(candidate)


def _ratio(group: str, slow: str, fast: str, n: int | None = None) -> Number:
    """Time of a candidate over that of another."""
    return lambda report: _find(report, group, slow, n).seconds / _find(report, group, fast, n).seconds


def _growth(group: str, candidate: str, power: int) -> Number:
    """Time at n = m = 65,536 over that at 4,096, over the same ratio of n^power."""

    def number(report: Report) -> float:
        large, small = (_find(report, group, candidate, n).seconds for n in (_LARGE, _N))
        return large / small / (_LARGE / _N) ** power

    return number


def _memory(report: Report) -> float:
    memory = _find(report, "S2", SCORE, _LARGE).memory
    if memory is None:
        raise KeyError(SCORE)
    return memory


CLAIMS = (
    Claim("S², time of the torch form", _ratio("S2", TORCH, SCORE, _N), at_least=10),
    Claim("S², time of autograd of the log-sum-exp", _ratio("S2", AUTOGRAD, SCORE, _N), at_least=25),
    Claim("S², time of KeOps", _ratio("S2", KEOPS, SCORE, _N), at_least=30),
    Claim("S², time over that of a hand-written loop", _ratio("S2", SCORE, LOOP, _N), at_most=1.5),
    Claim("S², time a pair at n = m = 65,536 over that at 4,096", _growth("S2", SCORE, 2), at_most=1.1),
    Claim("S², MB of extra memory at n = m = 65,536", _memory, at_most=32),
    Claim("R², time of the torch form", _ratio("R2", TORCH, SCORE, _N), at_least=8),
    Claim("R⁶⁴, time of the torch form", _ratio("R64", TORCH, SCORE, _N), at_least=8),
    Claim("H², time of the torch form", _ratio("H2", TORCH, SCORE, _N), at_least=8),
    Claim("S², time of `SphericalMatern` over it", _ratio("kernels", SPECTRAL, LAPLACE), at_most=1.5),
    Claim(
        "rotations, `spectral_score`: time a point at n = m = 65,536 over that at 4,096",
        _growth("eigenfunctions", LINEAR, 1),
        at_most=1.1,
    ),
    Claim(
        "rotations, n = m = 16,384, time of all pairs over `spectral_score`",
        _ratio("eigenfunctions", PAIRWISE, LINEAR, 16384),
        at_least=1,
    ),
    Claim("`NearestField` on S², time of the torch form", _ratio("nearest", TORCH, NEAREST), at_least=3),
)
"""Times are over that of `smoothed_score`, Laplace, n = m = 4,096, unless they say otherwise."""


def claims_table(report: Report) -> str:
    """Markdown: every claim that was measured, for the README."""
    rows = [row for claim in CLAIMS if (row := claim.row(report))]
    if not rows:
        return ""
    try:
        time = f" in {as_time(_find(report, 'S2', SCORE, _N).seconds)} on S²"
    except KeyError:
        time = ""
    header = f"| Laplace kernel, float32, n = m = {_N:,}{time} | claim | measured | |"
    return "\n".join([header, "|---|---|---|---|", *rows])
