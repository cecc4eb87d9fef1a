"""The picture of a report: time and memory as n, m, d, L and K grow, beside the machine's ceilings."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, NamedTuple

from drift_core.runs.figures import DATA_COLOUR, MODEL_COLOUR, THIRD_COLOUR, written_figure

from benchmarks.points import AUTOGRAD, KEOPS, LOGMAP, LOOP, SCORE, TORCH
from benchmarks.report import Report, Result
from benchmarks.simplex import BROADCAST, FISHER_RAO, ONEHOT, POWER

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PURPLE = "#CC79A7"
_COLOURS = {
    SCORE: DATA_COLOUR, ONEHOT: DATA_COLOUR, FISHER_RAO: DATA_COLOUR,
    TORCH: MODEL_COLOUR, POWER: MODEL_COLOUR,
    AUTOGRAD: THIRD_COLOUR,
    LOGMAP: _PURPLE, BROADCAST: _PURPLE,
    KEOPS: "#E69F00",
    LOOP: "black",
}  # fmt: skip
"""What is under test is blue; candidates without a colour are not drawn."""
_LEGEND = {
    f"{SCORE}; {ONEHOT} of sequences": DATA_COLOUR,
    f"{TORCH}; Power(Sphere()) of sequences": MODEL_COLOUR,
    AUTOGRAD: THIRD_COLOUR,
    "broadcast logmap": _PURPLE,
    KEOPS: "#E69F00",
    LOOP: "black",
}


_LEAST = {"seconds": 0.0, "memory": 0.01}
"""Least values that are drawn: a logarithm has no zero."""


class Ceiling(NamedTuple):
    """The least time of a part of the work."""

    style: str
    rate: str
    """Name of the machine's ceiling."""
    work: Callable[[int], int]
    """Work of a pair of points of dimension d."""


_CEILINGS = {
    "ceiling: one exponential a pair": Ceiling("--", "exps", lambda d: 1),
    "ceiling: two matrix products": Ceiling(":", "sgemm_flops", lambda d: 4 * d),
    "ceiling: one pass over an [n, m] array": Ceiling("-.", "copy_bytes", lambda d: 8),
}


class Panel(NamedTuple):
    """A group of cases along one of their sizes."""

    title: str
    group: str
    axis: Literal["n", "m", "d", "L", "K"]
    fixed: Mapping[str, int] = MappingProxyType({})
    """Sizes that other cases of the group vary."""


_SPACES = [Panel(f"{name}, n = m", group, "n") for name, group in
           {"S²": "S2", "R²": "R2", "R⁶⁴": "R64", "H²": "H2"}.items()]  # fmt: skip
_GROWTH = [
    Panel("S², m references", "references", "m"),
    Panel("Rᵈ", "dimensions", "d"),
    Panel("one-hot sequences, K = 4", "tokens", "L", {"K": 4}),
    Panel("one-hot sequences, L = 32", "tokens", "K", {"L": 32, "m": 4096}),
]
_SOFT = Panel("soft sequences, K = 4", "soft", "L", {"K": 4})


def draw(report: Report, path: Path) -> None:
    """Draw time (two rows) and extra memory (the third) to a PNG file."""
    about = report.machine
    with written_figure(path, 10.5, 17.0) as figure:
        top, middle, bottom = figure.subplots(3, 5, height_ratios=(1.4, 1, 1))
        for axes, panel in zip((*top[:4], *middle), (*_SPACES, *_GROWTH, _SOFT), strict=True):
            _panel(axes, panel, report, "seconds")
        for axes, panel in zip(bottom, (_SPACES[0], *_GROWTH), strict=True):
            _panel(axes, panel, report, "memory")
        measured = [axes for axes in top[:4] if axes.lines]
        for axes in measured[1:]:
            axes.sharey(measured[0])
        _legend(top[4])
        figure.suptitle(f"Drift fields, float32: {about['processor']}, {about['threads']} threads")


def _panel(axes: "Axes", panel: Panel, report: Report, what: Literal["seconds", "memory"]) -> None:
    """A line for every candidate, and the ceilings where n grows."""
    axes.set_title(panel.title, fontsize=10)
    axes.set_xlabel(panel.axis)
    axes.set_ylabel("seconds" if what == "seconds" else "extra memory, MB")
    cases = _cases(panel, report)
    if not cases:
        axes.text(0.5, 0.5, "not measured", ha="center", color="0.6", transform=axes.transAxes)
        axes.set(xticks=[], yticks=[])
        return
    for name, points in _lines(cases, panel.axis, what).items():
        width = 2.4 if _COLOURS[name] == DATA_COLOUR else 1.4
        axes.plot(
            *zip(*points, strict=True),
            "o-",
            color=_COLOURS[name],
            markersize=3.5,
            linewidth=width,
            zorder=width,
        )
    axes.set(xscale="log", yscale="log")
    axes.grid(alpha=0.25)
    sizes = [case.sizes[panel.axis] for case in cases]
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes], fontsize=8)
    axes.set_xticks([], minor=True)
    if panel in _SPACES and what == "seconds":
        _ceilings(axes, cases, report.ceilings)


def _cases(panel: Panel, report: Report) -> list[Result]:
    """Cases of a panel, by growing size."""
    found = [
        case
        for case in report.cases
        if case.group == panel.group and all(case.sizes[key] == size for key, size in panel.fixed.items())
    ]
    return sorted(found, key=lambda case: case.sizes[panel.axis])


def _lines(cases: list[Result], axis: str, what: str) -> dict[str, list[tuple[int, float]]]:
    """Points (size, seconds or MB) of every candidate that is drawn and was measured."""
    lines: dict[str, list[tuple[int, float]]] = {}
    for case in cases:
        for name, measured in case.candidates.items():
            value = getattr(measured, what)
            if name in _COLOURS and value is not None:
                lines.setdefault(name, []).append((case.sizes[axis], max(value, _LEAST[what])))
    return lines


def _ceilings(axes: "Axes", cases: list[Result], rates: dict[str, float]) -> None:
    sizes, d = [case.sizes["n"] for case in cases], cases[0].sizes["d"]
    for style, rate, work in _CEILINGS.values():
        axes.plot(sizes, [n * n * work(d) / rates[rate] for n in sizes], style, color="0.45", linewidth=1)


def _legend(axes: "Axes") -> None:
    """Explain the lines of all panels on axes of its own."""
    axes.axis("off")
    for label, colour in _LEGEND.items():
        axes.plot([], [], "o-", color=colour, markersize=3.5, label=label)
    for label, ceiling in _CEILINGS.items():
        axes.plot([], [], ceiling.style, color="0.45", label=label)
    axes.legend(loc="center", fontsize=9, frameon=False)
