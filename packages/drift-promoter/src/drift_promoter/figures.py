"""Figures of sequences, and of their k-mers beside the data's; each is a PNG file."""

import math
from pathlib import Path

import numpy as np
import torch
from drift_core.runs.figures import DATA_COLOUR, MODEL_COLOUR, written_figure
from jaxtyping import Float32, Float64, Int64
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, to_rgb
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Patch, PathPatch
from matplotlib.textpath import TextPath
from matplotlib.transforms import Bbox, BboxTransformFrom, BboxTransformTo
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from drift_promoter.bases import VOCABULARY
from drift_promoter.metrics import base_frequencies, is_gc, kmer_correlation, kmer_counts

LETTER_COLOURS = {"A": "#009E73", "C": "#0072B2", "G": "#E69F00", "T": "#D55E00"}
"""Of the same palette, and near the customary ones of sequence logos."""

_AROUND = 40
"""Positions on each side of the peak of the signal in a logo."""
_UPSTREAM, _DOWNSTREAM = 40, 20
"""Positions before and after the peak in a close-up of sequences."""
_TRACK_COLOURS = ("#333333", "#aaaaaa")
_GC_COLOURS, _GC_RANGE = colormaps["cividis"], Normalize(0.2, 0.8, clip=True)
_GAP = 0.25
"""Between the real sequence and the generated ones, in rows."""


def logo_figure(
    data: Int64[Tensor, "n length"],
    data_signal: Float32[Tensor, "n length tracks"],
    samples: Int64[Tensor, "m length"],
    samples_signal: Float32[Tensor, "m length tracks"],
    path: str | Path,
) -> None:
    """Draw sequence logos of data and samples around the peaks of their signals, in bits.

    Windows are aligned where their same-strand signal is highest (first, of equal positions), and only the
    quarter with the highest peaks is used: there transcription starts.
    """
    sides = {
        "data": around_peaks(data, data_signal, _AROUND),
        "generated": around_peaks(samples, samples_signal, _AROUND),
    }
    tables = {name: information(tokens) if len(tokens) else None for name, tokens in sides.items()}
    highest = max((float(table.sum(1).max()) for table in tables.values() if table is not None), default=0)
    with written_figure(path, 5.0) as figure:
        for axes, (name, table) in zip(figure.subplots(2, 1, sharex=True), tables.items(), strict=True):
            axes.set_title(f"{name}, {len(sides[name]):,} windows", fontsize=11, loc="left")
            axes.set_xlim(-_AROUND - 0.5, _AROUND + 0.5)
            axes.set_ylim(0, max(0.02, 1.05 * highest))
            axes.set_ylabel("bits")
            axes.spines[["top", "right"]].set_visible(False)
            if table is not None:
                _logo(axes, table)
        axes.set_xlabel("position from the peak of the signal (bp)")


def around_peaks(
    tokens: Int64[Tensor, "n length"], signal: Float32[Tensor, "n length tracks"], around: int
) -> Int64[Tensor, "found near"]:
    """Sequences within `around` of the peak of their same-strand signal, of windows that hold all of it.

    Of windows that have any signal the quarter with the highest peaks is kept.
    """
    height, at = signal[..., 0].max(1)
    least = height[height > 0].quantile(0.75) if (height > 0).any() else math.inf
    inside = (at >= around) & (at < tokens.shape[1] - around)
    rows = torch.nonzero(inside & (height > 0) & (height >= least))[:, 0]
    return tokens[rows[:, None], at[rows, None] + torch.arange(-around, around + 1)]


def information(tokens: Int64[Tensor, "n length"]) -> Float64[Tensor, "length 4"]:
    """Heights of letters in a logo: their share times the information of the position, in bits.

    That is 2 - H - 3 / (2 n ln 2) and at least 0, with H the entropy of the letters, which a sample of n
    underestimates by the last term on average (Schneider et al. 1986).
    """
    share = base_frequencies(tokens)
    entropy = -torch.xlogy(share, share).sum(1) / math.log(2)
    bits = 2 - entropy - (len(VOCABULARY) - 1) / (2 * len(tokens) * math.log(2))
    return share * bits.clamp_min(0)[:, None]


def kmer_figure(
    train: Int64[Tensor, "n length"],
    held_out: Int64[Tensor, "m length"],
    samples: Int64[Tensor, "k length"],
    path: str | Path,
) -> None:
    """Draw the frequencies of 6-mers in samples, and in training windows, against those held out."""
    k = 6
    real = kmer_counts(held_out, k)
    panels = {"generated": (samples, MODEL_COLOUR), "training": (train, DATA_COLOUR)}
    with written_figure(path, 5.8) as figure:
        grid = figure.subplots(1, 2, sharex=True, sharey=True)
        for axes, (name, (tokens, colour)) in zip(grid, panels.items(), strict=True):
            counts = kmer_counts(tokens, k)
            _scatter(axes, real, counts, k, colour)
            floor = ", the floor" if name == "training" else ""
            axes.set_title(f"{name}: r = {kmer_correlation(counts, real):.3f}{floor}", fontsize=11)
            axes.set_xlabel("6-mers per million, held-out windows")
            axes.set_ylabel(f"6-mers per million, {name} windows")
        span = [pick(*axes.get_xlim(), *axes.get_ylim()) for pick in (min, max)]
        axes.set(xlim=span, ylim=span)


def signal_figure(
    signal: Float32[Tensor, "c length tracks"],
    real: Int64[Tensor, "c length"],
    samples: Int64[Tensor, "c draws length"],
    path: str | Path,
) -> None:
    """Draw conditions: the signal, below it the real sequence and several generated for it.

    The same strand's signal points up, the other's, if it is given, down. On the left is the whole window,
    with GC contents averaged over 25 positions; on the right are the bases around the peak, more of them
    upstream.
    """
    conditions, draws, _ = samples.shape
    highest = max(0.1, 1.1 * float(signal.max()))
    with written_figure(path, 0.8 + conditions * (1.3 + 0.16 * draws)) as figure:
        grid = figure.subplots(
            2 * conditions, 2, squeeze=False, width_ratios=(1, 1), height_ratios=(5, 2 + draws) * conditions
        )
        for i in range(conditions):
            _condition(grid[2 * i : 2 * i + 2], signal[i], torch.cat([real[i, None], samples[i]]), highest)
        for axes in grid[-1]:
            axes.set_xlabel("position from the middle of the window (bp)")
        names = ("same strand", "other strand")[: signal.shape[2]]
        colours = dict(zip(names, _TRACK_COLOURS, strict=False))
        shades = {f"{share:.0%} GC": _GC_COLOURS(_GC_RANGE(share)) for share in (0.2, 0.5, 0.8)}
        entries = (colours | shades | LETTER_COLOURS).items()
        handles = [Patch(color=colour, label=label) for label, colour in entries]
        figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), frameon=False)


def _logo(axes: Axes, heights: Float64[Tensor, "width 4"]) -> None:
    """Stack the letters of each position, the highest on top, around position 0."""
    first = -(len(heights) // 2)
    for i, column in enumerate(heights.tolist()):
        low = 0.0
        for height, letter in sorted(zip(column, VOCABULARY, strict=True)):
            if height > 0:
                _glyph(axes, letter, Bbox.from_bounds(first + i - 0.46, low, 0.92, height))
            low += height


def _condition(
    grid: NDArray[np.object_],
    signal: Float32[Tensor, "length tracks"],
    sequences: Int64[Tensor, "rows length"],
    highest: float,
) -> None:
    """Fill two rows of panels, signal over sequences: of the whole window, and around the peak."""
    length, tracks = signal.shape
    low = max(0, min(int(signal[:, 0].argmax()) - _UPSTREAM, length - _UPSTREAM - _DOWNSTREAM - 1))
    near = slice(low, min(length, low + _UPSTREAM + _DOWNSTREAM + 1))
    for axes, part in zip(grid[0], (slice(0, length), near), strict=True):
        places = np.arange(length)[part] - length // 2
        for track in range(tracks):
            height = (-1) ** track * signal[part, track]
            axes.fill_between(places, height, step="mid", color=_TRACK_COLOURS[track], linewidth=0)
        axes.set(xlim=(places[0] - 0.5, places[-1] + 0.5), ylim=(-highest if tracks > 1 else 0, highest))
        axes.tick_params(labelbottom=False, bottom=False)
        axes.spines[["top", "right", "bottom"]].set_visible(False)
    grid[0, 0].set_ylabel("signal")
    smooth = F.avg_pool1d(is_gc(sequences).float(), 25, 1, 12, count_include_pad=False)
    _strips(grid[1, 0], -(length // 2), _GC_COLOURS(_GC_RANGE(smooth.numpy())))
    grid[1, 0].set_yticks([0, 0.2 + len(sequences) / 2], ["real", "generated"])
    _bases(grid[1, 1], low - length // 2, sequences[:, near])


def _bases(axes: Axes, first: int, sequences: Int64[Tensor, "rows length"]) -> None:
    """Draw letters in coloured cells; the first is at position `first`."""
    colours = np.array([to_rgb(colour) for colour in LETTER_COLOURS.values()])
    _strips(axes, first, colours[sequences.numpy()])
    for row, bases in enumerate(sequences.tolist()):
        for place, base in enumerate(bases, start=first):
            axes.text(
                place, row + _GAP * (row > 0), VOCABULARY[base], size=5.5, weight="bold", color="white",
                ha="center", va="center_baseline",
            )  # fmt: skip


def _strips(axes: Axes, first: int, colours: NDArray[np.float64]) -> None:
    """Draw rows of colours [rows, length, channels], the first row set apart from the others."""
    rows, length, _ = colours.shape
    for low, high, gap in ((0, 1, 0.0), (1, rows, _GAP)):
        box = (first - 0.5, first + length - 0.5, gap + high - 0.5, gap + low - 0.5)
        axes.imshow(colours[low:high], extent=box, aspect="auto", interpolation="nearest")
    axes.set_ylim(rows + _GAP - 0.5, -0.5)
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def _glyph(axes: Axes, letter: str, box: Bbox) -> None:
    """Draw a letter that fills a box of the axes."""
    outline = TextPath((0, 0), letter, size=1, prop=FontProperties(weight="bold"))
    fit = BboxTransformFrom(outline.get_extents()) + BboxTransformTo(box)
    axes.add_patch(PathPatch(fit.transform_path(outline), facecolor=LETTER_COLOURS[letter], linewidth=0))


def _scatter(
    axes: Axes, real: Float64[Tensor, "kmers"], other: Float64[Tensor, "kmers"], k: int, colour: str
) -> None:
    """Frequencies of k-mers on logarithmic axes; where one does not occur, half an occurrence is drawn."""
    observed, least = (real > 0) | (other > 0), 0.5 / min(real.sum(), other.sum())
    x, y = (1e6 * (side[observed] / side.sum()).clamp_min(least) for side in (real, other))
    codes = torch.nonzero(observed)[:, 0]
    pairs = torch.stack([codes // 4**i % 16 for i in range(k - 1)])
    cpg = (pairs == 4 * VOCABULARY.index("C") + VOCABULARY.index("G")).any(0)
    for some, face, label in ((~cpg, colour, "without CpG"), (cpg, "none", "with CpG")):
        axes.scatter(
            x[some], y[some], s=6, facecolors=face, edgecolors=colour if face == "none" else "none",
            linewidths=0.5, alpha=0.5, label=label, rasterized=True,
        )  # fmt: skip
    axes.set(xscale="log", yscale="log", aspect="equal", adjustable="box")
    axes.axline((10, 10), (1000, 1000), color="#444444", linewidth=0.8)
    axes.legend(frameon=False, loc="upper left", markerscale=2)
    axes.grid(True, color="#dddddd", linewidth=0.5)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
