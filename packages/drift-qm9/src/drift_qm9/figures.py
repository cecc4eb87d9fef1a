"""Figures of molecules, and of their properties beside the data's; each is a PNG file."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from drift_core.files import atomic_path
from drift_core.runs.figures import DATA_COLOUR, MODEL_COLOUR, written_figure
from rdkit import Chem

from drift_qm9.chemistry import DESCRIPTORS
from drift_qm9.metrics import descriptors, lengths, molecules

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLUMNS, _ROWS, _PANEL = 6, 4, 220


def molecules_figure(strings: Sequence[str], known: frozenset[str], path: str | Path) -> None:
    """Draw the first 24 distinct molecules among generated strings, each over its SMILES.

    "(new)" stands behind what is not `known`, the canonical SMILES of the training molecules. Without the
    libraries that RDKit draws by (libXrender, which some servers lack) the figure says so.
    """
    try:
        from rdkit.Chem.Draw import rdMolDraw2D
    except ImportError as error:
        _text_figure(f"RDKit cannot draw molecules here: {error}", path)
        return
    smiles = list(dict.fromkeys(mol.smiles for mol in molecules(strings)))[: _COLUMNS * _ROWS]
    if not smiles:
        _text_figure(f"no molecule among {len(strings):,} strings", path)
        return
    size = _COLUMNS * _PANEL, -(-len(smiles) // _COLUMNS) * _PANEL
    drawing = rdMolDraw2D.MolDraw2DCairo(*size, _PANEL, _PANEL)
    options: Any = drawing.drawOptions()  # RDKit's stubs have the types of its properties wrong
    options.fixedBondLength, options.padding = 36, 0.12
    options.legendFontSize, options.legendFraction = 16, 0.16
    legends = [string if string in known else f"{string} (new)" for string in smiles]
    drawing.DrawMolecules([Chem.MolFromSmiles(string) for string in smiles], legends=legends)
    drawing.FinishDrawing()
    with atomic_path(Path(path)) as part:
        part.write_bytes(drawing.GetDrawingText())


def _text_figure(text: str, path: str | Path) -> None:
    """Write a figure that is a line of text."""
    with written_figure(path, 3.0) as figure:
        figure.text(0.5, 0.5, text, ha="center", fontsize=14, wrap=True)


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


def _histograms(axes: "Axes", real: np.ndarray, generated: np.ndarray) -> None:
    """Shares of both sides: of each value of counts, else of 24 bins over the data's range.

    What lies beyond that range is counted in the outer bins.
    """
    if (real == real.round()).all():
        both = np.concatenate((real, generated))
        edges = np.arange(both.min() - 0.5, both.max() + 1)
        from matplotlib.ticker import MaxNLocator

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
