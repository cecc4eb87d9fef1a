"""Line charts as SVG, whose colours follow the page."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple

Point = tuple[float, float]

_MAX_TICKS = 5


class Tick(NamedTuple):
    """A labelled position on an axis, in pixels of the chart."""

    position: float
    label: str


class Axis(NamedTuple):
    """A map from values to pixels: linear, or of the logarithm."""

    low: float
    high: float
    start: float
    """Pixel of the lowest value."""
    end: float
    """Pixel of the highest value."""
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        """Pixel of a value."""
        low, high, value = (math.log(v) if self.logarithmic else v for v in (self.low, self.high, value))
        return self.start + (self.end - self.start) * (value - low) / (high - low)

    @property
    def ticks(self) -> list[Tick]:
        """Round values of the axis."""
        values = _decades(self.low, self.high) if self.logarithmic else []
        if len(values) < 2:
            values = _round_values(self.low, self.high)
        return [Tick(round(self(value), 1), f"{value:,.6g}") for value in values]


@dataclass(frozen=True)
class Chart:
    """Curves over a common axis; values that are not finite are left out.

    The y axis is logarithmic if asked for and all values are positive, and else starts at 0 or below; without
    other values it ends at 1.
    """

    title: str
    curves: Mapping[str, Sequence[Point]]
    """Points (x, y) of each curve by its label."""
    x_label: str = "step"
    logarithmic: bool = False

    kind: ClassVar[str] = "chart"
    width: ClassVar[int] = 360
    height: ClassVar[int] = 220
    left: ClassVar[int] = 52
    right: ClassVar[int] = 334
    top: ClassVar[int] = 10
    bottom: ClassVar[int] = 184

    @cached_property
    def points(self) -> dict[str, list[Point]]:
        """Finite points of each curve."""
        return {
            label: [point for point in curve if all(map(math.isfinite, point))]
            for label, curve in self.curves.items()
        }

    @cached_property
    def x(self) -> Axis:
        """The horizontal axis."""
        low, high = _range(x for curve in self.points.values() for x, _ in curve)
        return Axis(low, high, self.left, self.right)

    @cached_property
    def y(self) -> Axis:
        """The vertical axis."""
        values = [y for curve in self.points.values() for _, y in curve]
        if self.logarithmic and values and min(values) > 0:
            low, high = min(values), max(values)
            margin = (high / low) ** 0.05 if high > low else 2.0
            return Axis(low / margin, high * margin, self.bottom, self.top, logarithmic=True)
        low, high = min([0.0, *values]), max([0.0, *values])
        return Axis(low, high + 0.05 * (high - low) if high > low else 1.0, self.bottom, self.top)

    @property
    def paths(self) -> dict[str, str]:
        """Path of each curve in SVG; a single point becomes a dash."""
        return {
            label: "M" + "L".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in curve) + "m-2,0h4"
            for label, curve in self.points.items()
            if curve
        }


def _range(values: Iterable[float]) -> tuple[float, float]:
    """Lowest and highest value; a range around the only one, or 0 to 1 without any."""
    found = list(values)
    low, high = min(found, default=0.0), max(found, default=1.0)
    margin = 0.0 if high > low else abs(low) / 2 or 0.5
    return low - margin, high + margin


def _round_values(low: float, high: float) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten within the range."""
    power = 10.0 ** math.floor(math.log10((high - low) / _MAX_TICKS))
    step = next(m * power for m in (1, 2, 5, 10, 20) if (high - low) / (m * power) <= _MAX_TICKS)
    return [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _decades(low: float, high: float) -> list[float]:
    """Powers of ten within the range, at most `_MAX_TICKS` of them."""
    first, last = math.ceil(math.log10(low)), math.floor(math.log10(high))
    stride = max(1, math.ceil((last - first + 1) / _MAX_TICKS))
    return [10.0**k for k in range(first, last + 1, stride)]
