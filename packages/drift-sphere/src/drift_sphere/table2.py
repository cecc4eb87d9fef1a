"""Table 2 of the paper: seven methods on events on the Earth, beside two further ones and three anchors."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from drift_core import Euclidean
from drift_core.original import OriginalField
from drift_core.runs.study import Cell, Shown, Table, folder_name, lengthscale_candidates

from drift_sphere.data import Points
from drift_sphere.density import Bootstrap, KernelDensity, UniformPoints, fitted_density
from drift_sphere.domain import SphereConfig, SphereDomain
from drift_sphere.likelihood import BANDWIDTHS

Budget = Literal["quick", "full"]

DATASETS = ("volcano", "earthquake", "fire", "flood")

METHODS: dict[str, tuple[dict[str, Any], tuple[float, float, float, float]]] = {
    "Euclidean Laplace (displacement)": (
        {"geometry": "euclidean", "direction": "displacement"}, (0.146, 0.044, 0.036, 0.064)
    ),
    "Euclidean Laplace Gradient": ({"geometry": "euclidean"}, (0.128, 0.038, 0.030, 0.067)),
    "Euclidean Gaussian Gradient": (
        {"geometry": "euclidean", "kernel": "gaussian"}, (0.143, 0.047, 0.048, 0.072)
    ),
    "Spherical Laplace (displacement)": ({"direction": "displacement"}, (0.113, 0.043, 0.049, 0.064)),
    "Spherical Laplace Gradient": ({}, (0.113, 0.056, 0.047, 0.053)),
    "Spherical Gaussian Gradient": ({"kernel": "gaussian"}, (0.112, 0.158, 0.039, 0.058)),
    "Spectral (Matern on the sphere)": ({"kernel": "spectral"}, (0.126, 0.037, 0.029, 0.070)),
}  # fmt: skip
"""Settings of the paper's rows, and their published MMD on `DATASETS`."""

ORIGINAL = "Euclidean, field of the original code"
DEFAULT = "our default"
RECITED, DENSITY, NOISE = (
    "training rows, drawn with replacement",
    "density estimate of the training rows",
    "uniform noise",
)

METRICS = (
    Shown("mmd", "MMD"),
    Shown("mmd2_unbiased", "unbiased MMD²", digits=4),
    Shown("sinkhorn", "Sinkhorn"),
    Shown("nn_accuracy", "1-NN accuracy"),
    Shown("log_likelihood", "Log-likelihood of test points", "higher", digits=2, ratio=False),
)

LENGTHSCALES = {
    "quick": ("0.1", "0.3", "2:0.1"),
    "full": ("0.05", "0.1", "0.2", "0.3", "0.5", "1", "2:0.1"),
}
"""Lengthscales, in radians, from which each of the paper's rows takes the best on validation points."""

_SIZES: dict[Budget, dict[str, dict[str, Any]]] = {
    "quick": {
        "paper": {"steps": 300, "batch_size": 512, "eval_draws": 20},
        "earth": {"steps": 1_000, "batch_size": 1_024, "eval_draws": 20},
    },
    "full": {"paper": {"eval_draws": 20}, "earth": {"eval_draws": 20}},
}
"""Sizes of runs by budget and recipe; the lengthscale of our default falls a thousandfold: more steps."""

_TUNING: dict[Budget, dict[str, Any]] = {"quick": {}, "full": {"steps": 1_000}}
"""Sizes of the runs that choose a lengthscale."""

SEEDS = 3


def table2(budget: Budget = "quick", data_dir: Path | None = None) -> Table:
    """The table for a budget; data are looked for in `data_dir` as `drift_sphere.load` does."""
    cells, published = {}, {}
    for column, dataset in enumerate(DATASETS):
        data = {"dataset": dataset, "data_dir": data_dir}
        for row, (settings, values) in METHODS.items():
            cells[row, dataset] = _cell(
                row, budget, "paper", {**settings, **data}, lengthscale_candidates(LENGTHSCALES[budget])
            )
            published[row, dataset] = values[column]
        original = {"geometry": "euclidean", "step_size": 1.0}
        cell = _cell(ORIGINAL, budget, "paper", {**original, **data})
        cells[ORIGINAL, dataset] = replace(cell, domain=SphereDomain(original_field))
        cells[DEFAULT, dataset] = _cell(DEFAULT, budget, "earth", data)
        for row, generator in ((RECITED, recited), (DENSITY, density), (NOISE, noise)):
            cells[row, dataset] = replace(_cell(row, budget, "earth", data), generator=generator)
    return Table(
        "table2",
        "Table 2: events on the Earth",
        _about(budget),
        cells,
        METRICS,
        {"mmd": published},
        SEEDS,
        anchors=(RECITED, DENSITY, NOISE),
    )


def original_field(config: SphereConfig, data: Points) -> OriginalField:
    """The field of the original public code, in R^3."""
    return OriginalField(Euclidean())


def recited(config: SphereConfig, data: Points) -> Bootstrap:
    """The training rows, drawn with replacement."""
    return Bootstrap(data.train)


def density(config: SphereConfig, data: Points) -> KernelDensity:
    """The density estimate of the training rows."""
    return fitted_density(data.train, data.val)


def noise(config: SphereConfig, data: Points) -> UniformPoints:
    """Uniform noise."""
    return UniformPoints()


def _cell(
    row: str,
    budget: Budget,
    recipe: str,
    settings: Mapping[str, Any],
    candidates: Mapping[str, Mapping[str, Any]] | None = None,
) -> Cell:
    domain = SphereDomain()
    config = SphereConfig.of(**{**domain.recipes[recipe], **_SIZES[budget][recipe], **settings})
    folder = f"{config.data.dataset}/{folder_name(row)}"
    return Cell(folder, domain, config, candidates or {}, tuning_settings=_TUNING[budget])


def _about(budget: Budget) -> str:
    scales, (*_, widest) = ", ".join(LENGTHSCALES[budget]), BANDWIDTHS
    return (
        f"{_scale(budget)} The paper's rows have `--recipe paper`, and the lengthscale (not published) that "
        f"has the lowest unbiased MMD² on validation points{_trial(budget)}, of {scales} radians (a:b falls "
        "from a to b). "
        "The original code's field has its own three lengthscales (`OriginalField`), and its step size, 1. "
        "Our default is `--recipe earth`. Training rows drawn with replacement are the best that a generator "
        "which only recites can draw; the floor is of distinct rows, as fresh data would be. "
        "The density estimate recites the training rows, moved by the "
        f"bandwidth that is best on validation points, of {BANDWIDTHS[0]:g} to {widest:g} radians."
    )


def _trial(budget: Budget) -> str:
    """After how many steps, where these are fewer than the cell's."""
    steps = _TUNING[budget].get("steps")
    return f" after {steps:,} steps" if steps else ""


def _scale(budget: Budget) -> str:
    if budget == "full":
        steps, batch = SphereDomain.recipes["paper"]["steps"], SphereConfig().batch.batch_size
        return f"The paper's scale, as far as it is published: {steps:,} steps of {batch:,} in every row."
    paper, default = _SIZES["quick"]["paper"], _SIZES["quick"]["earth"]
    return (
        f"A quick look, not a comparison at equal cost: {paper['steps']:,} steps of {paper['batch_size']:,} "
        f"for the paper's rows, {default['steps']:,} of {default['batch_size']:,} for our default, "
        f"{paper['eval_draws']} draws."
    )
