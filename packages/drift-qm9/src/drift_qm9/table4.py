"""Table 4 of the paper: molecules by the paper's two methods, beside our default from fresh latents."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from drift_core.runs.study import Cell, Shown, Table, folder_name, lengthscale_candidates

from drift_qm9.config import MoleculeConfig
from drift_qm9.domain import MoleculeDomain

Budget = Literal["quick", "full"]

COLUMN = "qm9"

EUCLIDEAN, SPHERICAL, DEFAULT, SELFIES = (
    "Euclidean Laplace (displacement)",
    "Spherical Laplace Gradient",
    "our default",
    "our default, in SELFIES",
)

PUBLISHED = {
    "valid": {
        EUCLIDEAN: 0.220, SPHERICAL: 0.389, "UDLM and DCD": 0.315, "PairFlow and DCD": 0.443,
        "UDLM and ReDi": 0.058, "PairFlow and ReDi": 0.353,
    },
    "unique_of_valid": {EUCLIDEAN: 0.400, SPHERICAL: 0.441},
    "unique_of_all": {
        "UDLM and DCD": 0.313, "PairFlow and DCD": 0.441, "UDLM and ReDi": 0.058, "PairFlow and ReDi": 0.351
    },
}  # fmt: skip
"""Published values, of one step; of what uniqueness is published is inferred from the numbers."""

METRICS = (
    Shown("valid", "valid", "higher"),
    Shown("unique_of_valid", "unique among valid", "higher"),
    Shown("unique_of_all", "unique of 1,024", "higher"),
    Shown("unique_of_10000", "unique of 10,000", "higher"),
    Shown("novel", "novel", ""),
    Shown("lengths_w1", "lengths"),
    Shown("bigrams_tv", "bigrams"),
    Shown("rings_tv", "rings"),
    Shown("frechet", "frechet", digits=2),
)

_STRAIGHT = {"geometry": "euclidean", "direction": "displacement", "lengthscale": "auto", "output": None}

_QUICK: dict[str, dict[str, Any]] = {
    "paper": {"steps": 60, "batch_size": 128, "num_positives": 4_096, "eval_draws": 3},
    "default": {"steps": 60, "batch_size": 256, "eval_draws": 3},
}
LENGTHSCALES: dict[Budget, tuple[str, ...]] = {
    "quick": ("auto", "auto:0.15"),
    "full": ("auto", "auto:0.15", "0.25", "0.15", "1.0"),
}
"""Lengthscales, in radians (Euclidean: of coordinates), from which each of the paper's rows takes the best on
validation molecules; auto is 0.5."""

_TUNING: dict[Budget, dict[str, Any]] = {
    "quick": {"steps": 20, "warmup_steps": 5},
    "full": {"steps": 2_000, "warmup_steps": 200},
}
"""Sizes of the runs that choose a lengthscale."""

SEEDS = 3


def table4(budget: Budget = "quick", data_dir: Path | None = None) -> Table:
    """The table for a budget; data are looked for in `data_dir` as `drift_qm9.load` does."""
    recipes, data = MoleculeDomain.recipes, {"dataset": "qm9", "data_dir": data_dir}
    if budget == "quick":
        rows = {
            EUCLIDEAN: {**recipes["paper-euclidean"], **_QUICK["paper"]},
            SPHERICAL: {**recipes["paper"], **_QUICK["paper"]},
            DEFAULT: {**recipes["qm9"], **_QUICK["default"]},
            SELFIES: {**recipes["selfies"], **_QUICK["default"]},
        }
    else:
        reference = recipes["reference-gpu"]
        rows = {
            EUCLIDEAN: {**reference, **_STRAIGHT},
            SPHERICAL: dict(reference),
            DEFAULT: dict(recipes["qm9"]),
            SELFIES: dict(recipes["selfies"]),
            f"{DEFAULT}, larger": dict(recipes["qm9-gpu"]),
        }
    cells = {(row, COLUMN): _cell(row, {**settings, **data}) for row, settings in rows.items()}
    for row in (EUCLIDEAN, SPHERICAL):
        candidates = lengthscale_candidates(LENGTHSCALES[budget])
        cells[row, COLUMN] = replace(
            cells[row, COLUMN], candidates=candidates, tuning_settings=_TUNING[budget]
        )
    published = {
        metric: {(row, COLUMN): value for row, value in values.items()}
        for metric, values in PUBLISHED.items()
    }
    return Table("table4", "Table 4: molecules", _about(budget), cells, METRICS, published, SEEDS)


def _cell(row: str, settings: Mapping[str, Any]) -> Cell:
    return Cell(folder_name(row), MoleculeDomain(), MoleculeConfig.of(**settings))


def _about(budget: Budget) -> str:
    chosen = (
        "The paper's rows have the lengthscale (not published) that is best on validation molecules after "
        f"{_TUNING[budget]['steps']:,} steps, of {', '.join(LENGTHSCALES[budget])} (a:b falls from a to b)."
    )
    novel = (
        "Novel: distinct molecules that are not in the training data, among the valid. "
        "In SELFIES every string is a molecule."
    )
    if budget == "full":
        return (
            "The paper's scale: its rows have the network and the optimiser of the reference "
            "(`--recipe reference-gpu`), our default is `--recipe qm9`, and larger `--recipe qm9-gpu`. "
            f"{chosen} {novel}"
        )
    paper, default = _QUICK["paper"], _QUICK["default"]
    return (
        f"A smoke test, not a result: {paper['steps']} steps of {paper['batch_size']} for the paper's rows "
        "(`--recipe paper` and `paper-euclidean`, whose transformer is the small one) against "
        f"{paper['num_positives']:,} positives, {default['steps']} steps of {default['batch_size']} for our "
        f"default (`--recipe qm9`), {default['eval_draws']} draws. {chosen} {novel}"
    )
