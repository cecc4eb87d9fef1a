"""Table 3 of the paper: promoters, whole sequences by four methods beside our default."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from drift_core.runs.study import Cell, Shown, Table, folder_name, lengthscale_candidates

from drift_promoter.config import PromoterConfig
from drift_promoter.domain import PromoterDomain
from drift_promoter.genome.benchmark import ROWS, find_sources

Budget = Literal["quick", "full"]

TILED = Path("tiled.tsv")
"""Table of start sites, beside the benchmark's files, whose windows tile a small genome."""

METHODS: dict[str, dict[str, Any]] = {
    "Euclidean Laplace (displacement)": {
        "kernel": "laplace", "direction": "displacement", "geometry": "euclidean", "output": None
    },
    "Spherical Laplace (displacement)": {"kernel": "laplace", "direction": "displacement"},
    "Spherical Laplace Gradient": {"kernel": "laplace"},
    "Spherical Gaussian Gradient": {},
}  # fmt: skip
"""Settings of the paper's rows."""

DEFAULT = "our default"

PUBLISHED = {"Spherical Gaussian Gradient": 0.90, "E-RMF and v-prediction, distilled": 0.96}
"""Published 6-mer correlations on the whole benchmark."""

LENGTHSCALES: dict[Budget, dict[str, tuple[str, ...]]] = {
    "quick": {"laplace": ("0.25",), "gaussian": ("2.5",)},
    "full": {
        "laplace": ("auto", "0.15", "0.25", "1.0", "auto:0.15"),
        "gaussian": ("auto", "1.5", "2.5", "8.0", "auto:1.5"),
    },
}
"""Lengthscales of kernels, in radians, from which each of the paper's rows takes the best on validation
windows; auto is 0.5 of a Laplace kernel and 4.6 of a Gaussian on `TILED`. The quick ones did better there
than auto after 6 and 10 steps."""

METRICS = (
    Shown("kmer_correlation", "6-mers", "higher"),
    Shown("kmer3_correlation", "3-mers", "higher"),
    Shown("kmer8_correlation", "8-mers", "higher"),
    Shown("conditioning", "conditioning", "higher"),
    Shown("conditioning_shuffled", "conditioning, shuffled", "", ratio=False),
    Shown("gc_w1", "GC content"),
    Shown("novelty", "novelty", "", ratio=False),
    Shown("nearest_train", "distance to the nearest training window", "", ratio=False),
)

_QUICK: dict[str, Any] = {"steps": 20, "batch_size": 16, "eval_draws": 1}
_QUICK_PAPER: dict[str, Any] = {"preset": "small", "num_positives": 2_048}
_TUNING: dict[str, Any] = {"steps": 1_000}
"""Sizes of the runs that choose a lengthscale."""

SEEDS = 3


def table3(budget: Budget = "quick", data_dir: Path | None = None) -> Table:
    """The table for a budget; data are looked for in `data_dir` as `drift_promoter.load` does."""
    cells = {}
    for column, (data, recipe) in _columns(budget, data_dir).items():
        for row, method in METHODS.items():
            quick = _QUICK | _QUICK_PAPER if budget == "quick" else {}
            cell = _cell(row, column, "paper", {**method, **data, **quick})
            scales = LENGTHSCALES[budget][cell.config.kernel.kernel]
            cells[row, column] = replace(
                cell, candidates=lengthscale_candidates(scales), tuning_settings=_TUNING
            )
        cells[DEFAULT, column] = _cell(
            DEFAULT, column, recipe, {**data, **(_QUICK if budget == "quick" else {})}
        )
    columns = dict.fromkeys(column for _, column in cells)
    published = {(row, column): value for row, value in PUBLISHED.items() for column in columns}
    shown = {"kmer_correlation": published}
    return Table("table3", "Table 3: promoters", _about(budget), cells, METRICS, shown, SEEDS)


def _columns(budget: Budget, data_dir: Path | None) -> dict[str, tuple[dict[str, Any], str]]:
    """Data settings, and the recipe of our default, by column: what there is of the two tables."""
    tiled = {"tiled.tsv": ({"tss": TILED, "data_dir": data_dir}, "promoter")}
    if not _is_whole(data_dir):
        return tiled
    recipe = "promoter-gpu" if budget == "full" else "promoter"
    whole = {"benchmark": ({"dataset": "promoter", "data_dir": data_dir}, recipe)}
    if not _has_tiled(data_dir):
        return whole
    return tiled | whole if budget == "full" else tiled


def _is_whole(data_dir: Path | None) -> bool:
    """Whether the benchmark's table is there with all its start sites; a miniature has a few hundred."""
    try:
        path = find_sources(data_dir).tss
    except FileNotFoundError:
        return False
    with path.open("rb") as lines:
        return sum(1 for _ in lines) > ROWS // 2


def _has_tiled(data_dir: Path | None) -> bool:
    try:
        find_sources(data_dir, TILED)
    except FileNotFoundError:
        return False
    return True


def _cell(row: str, column: str, recipe: str, settings: Mapping[str, Any]) -> Cell:
    domain = PromoterDomain()
    config = PromoterConfig.of(**{**domain.recipes[recipe], **settings})
    return Cell(f"{column}/{folder_name(row)}", domain, config)


def _about(budget: Budget) -> str:
    grids = "; ".join(f"{kernel}: {', '.join(scales)}" for kernel, scales in LENGTHSCALES[budget].items())
    chosen = (
        f"The paper's rows have the lengthscale (not published) that is best on validation windows after "
        f"{_TUNING['steps']:,} steps ({grids}; a:b falls from a to b)."
    )
    published = "Published 6-mer correlations are of the whole benchmark."
    if budget == "full":
        return (
            "The paper's scale: `--recipe paper` for its rows; for our default `--recipe promoter-gpu` on "
            f"the benchmark and `--recipe promoter` on {TILED}. {chosen} {published}"
        )
    batch, paper = _QUICK["batch_size"], PromoterDomain.recipes["paper"]
    return (
        f"A smoke test, not a result: {_QUICK['steps']} steps of {batch} of the network `small`, one draw. "
        f"The paper's rows take {paper['steps']:,} steps of {paper['batch_size']} of a network thirty times "
        "as large. They have `--recipe paper`, our default `--recipe promoter`. Lengthscales of the paper's "
        f"rows in radians, which are not published: {grids}. {published}"
    )
