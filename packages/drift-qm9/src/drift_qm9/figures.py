"""Figures of molecules, of their properties beside the data's, and of training; each is a PNG file."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from drift_core.runs import atomic_path
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from rdkit import Chem
from rdkit.Chem.Draw import rdMolDraw2D

from drift_qm9.chemistry import DESCRIPTORS
from drift_qm9.metrics import descriptors, lengths, molecules

DATA_COLOUR, MODEL_COLOUR = "#0072B2", "#D55E00"
"""Blue and vermillion of the palette of Okabe and Ito (2008), safe for colour-blind readers."""

_GREEN = "#009E73"
_COLUMNS, _ROWS, _PANEL = 6, 4, 220


def molecules_figure(strings: Sequence[str], known: frozenset[str], path: str | Path) -> None:
    """Draw the first 24 distinct molecules among generated strings, each over its SMILES.

    A star marks what is not `known`, the canonical SMILES of the training molecules.
    """
    smiles = list(dict.fromkeys(mol.smiles for mol in molecules(strings)))[: _COLUMNS * _ROWS]
    if not smiles:
        with written_figure(path, 3.0) as figure:
            figure.text(0.5, 0.5, f"no molecule among {len(strings):,} strings", ha="center", fontsize=14)
        return
    size = _COLUMNS * _PANEL, -(-len(smiles) // _COLUMNS) * _PANEL
    drawing = rdMolDraw2D.MolDraw2DCairo(*size, _PANEL, _PANEL)
    options: Any = drawing.drawOptions()  # RDKit's stubs have the types of its properties wrong
    options.fixedBondLength, options.padding = 36, 0.12
    options.legendFontSize, options.legendFraction = 16, 0.16
    legends = [string if string in known else f"{string} *" for string in smiles]
    drawing.DrawMolecules([Chem.MolFromSmiles(string) for string in smiles], legends=legends)
    drawing.FinishDrawing()
    with atomic_path(Path(path)) as part:
        part.write_bytes(drawing.GetDrawingText())


def properties_figure(data: Sequence[str], strings: Sequence[str], path: str | Path) -> None:
    """Draw histograms of lengths and of the descriptors of molecules, of data and of generated strings."""
    tables = [descriptors(molecules(side)) for side in (data, strings)]
    columns = {"tokens": (np.asarray(lengths(data)), np.asarray(lengths(strings)))}
    for i, name in enumerate(DESCRIPTORS.values()):
        columns[name] = tables[0][:, i], tables[1][:, i]
    with written_figure(path, 7.5) as figure:
        for axes, (name, (real, generated)) in zip(figure.subplots(3, 3).flat, columns.items(), strict=True):
            _histograms(axes, real, generated)
            axes.set_xlabel(name)
        for axes in figure.axes[::3]:
            axes.set_ylabel("share")
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False)


def training_figure(records: Sequence[Mapping[str, float | int]], path: str | Path) -> None:
    """Draw loss, field and effective sample size against the step, from the lines of metrics.jsonl.

    Records have the keys step, loss, drift_norm, attraction_norm, repulsion_norm, ess and clipped; a curve
    is left out where its key is missing.
    """
    panels = {
        "Loss": {"loss": "loss"},
        "Norm of the field": {
            "drift_norm": "drift", "attraction_norm": "attraction", "repulsion_norm": "repulsion"
        },
        "Effective sample size": {"ess": "references"},
        "Fraction of clipped steps": {"clipped": "clipped"},
    }  # fmt: skip
    with written_figure(path, 6.0) as figure:
        grid = figure.subplots(2, 2, sharex=True).flat
        for axes, (title, curves) in zip(grid, panels.items(), strict=True):
            _curves(axes, records, curves, logarithmic=title in ("Loss", "Norm of the field"))
            axes.set_title(title, fontsize=11)
        for axes in figure.axes[2:]:
            axes.set_xlabel("step")


@contextmanager
def written_figure(path: str | Path, height: float) -> Iterator[Figure]:
    """Make a figure, 11 inches wide, that is written to the PNG file `path` at the end, all or nothing."""
    figure = Figure(figsize=(11, height), layout="constrained")
    yield figure
    with atomic_path(Path(path)) as part:
        figure.savefig(part, dpi=150, format="png")


def _histograms(axes: Axes, real: np.ndarray, generated: np.ndarray) -> None:
    """Shares of both sides: of each value of counts, else of 24 bins over the data's range.

    What lies beyond that range is counted in the outer bins.
    """
    if (real == real.round()).all():
        both = np.concatenate((real, generated))
        edges = np.arange(both.min() - 0.5, both.max() + 1)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    else:
        edges = np.linspace(real.min(), real.max(), 25)
    shares = [
        np.histogram(side.clip(edges[0], edges[-1]), edges)[0] / max(1, len(side))
        for side in (real, generated)
    ]
    axes.stairs(shares[0], edges, fill=True, color=DATA_COLOUR, alpha=0.4, label="data")
    axes.stairs(shares[1], edges, color=MODEL_COLOUR, linewidth=1.4, label="generated")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def _curves(
    axes: Axes, records: Sequence[Mapping[str, float | int]], curves: Mapping[str, str], logarithmic: bool
) -> None:
    """Draw {key: label} against the step, from 0 up; losses and norms, which span decades, as logarithms."""
    values: list[float] = []
    for (key, label), colour in zip(curves.items(), (DATA_COLOUR, MODEL_COLOUR, _GREEN), strict=False):
        steps = [record["step"] for record in records if key in record]
        curve = [record[key] for record in records if key in record]
        axes.plot(steps, curve, color=colour, linewidth=1.4, label=label, clip_on=False, zorder=3)
        values += filter(math.isfinite, curve)
    if logarithmic and values and min(values) > 0:
        axes.set_yscale("log")
    else:
        axes.set_ylim(0, 1.05 * max(values, default=0) or 1)
    if len(curves) > 1:
        axes.legend(frameon=False)
    axes.grid(True, color="#dddddd", linewidth=0.5)
    axes.spines[["top", "right"]].set_visible(False)
