"""What each choice of our default is worth: variants that change one thing of it."""

from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from drift_core import BalancedField, Laplace, Mixture
from drift_core.runs.study import Cell, Table, folder_name, lengthscale_candidates
from drift_core.training.samplers import Sampler, resample

from drift_sphere.compute import QUALITY
from drift_sphere.data import Points
from drift_sphere.domain import SphereConfig, SphereDomain, batch_field, kernel_field

Budget = Literal["quick", "full"]

DATASET, TRAINING_POINTS = "earthquake", 4_896

DEFAULT, ONE = "our default", "lengthscale: one throughout"
MIXTURE = "kernel: mixture of Laplace at 1 and 4 lengthscales"
DISPLACEMENT, COMPANION = "direction: displacement", "direction: gradient of its Matern 3/2"
BATCHES, BALANCED = "data: batches to the end", "data: batches to the end, balanced"

VARIANTS: dict[str, dict[str, Any]] = {
    DEFAULT: {},
    ONE: {},
    "lengthscale: 0.5 and 0.05 together": {"lengthscale": "0.5,0.05"},
    "lengthscale: annealed to 0.05": {"lengthscale": "2:0.05"},
    "lengthscale: annealed to 0.02": {"lengthscale": "2:0.02"},
    "kernel: Gaussian": {"kernel": "gaussian"},
    "kernel: Matern 3/2": {"kernel": "matern", "nu": 1.5},
    "kernel: Matern 5/2": {"kernel": "matern", "nu": 2.5},
    "kernel: spectral Matern 3/2, to 0.02": {"kernel": "spectral", "nu": 1.5},
    "kernel: heat, to 0.05": {"kernel": "spectral", "nu": float("inf")},
    MIXTURE: {},
    DISPLACEMENT: {"direction": "displacement"},
    # The displacement's numerator is the gradient of this kernel; sqrt(3) times 2 and 0.002.
    COMPANION: {"kernel": "matern", "nu": 1.5, "lengthscale": "3.4641016:0.0034641016"},
    BATCHES: {"neighbors": 0},
    "data: all training points at every step": {"num_positives": TRAINING_POINTS},
    BALANCED: {"neighbors": 0},
}
"""Settings of the rows that differ from our default; fields of `MIXTURE` and `BALANCED` are made by hand."""

LENGTHSCALES = ("0.05", "0.1", "0.3")
"""Lengthscales, in radians, from which the row of one lengthscale takes the best on validation points."""

_SIZES: dict[Budget, dict[str, Any]] = {
    "quick": {"steps": 500, "batch_size": 512, "eval_draws": 10},
    "full": {"eval_draws": 20},
}
_TUNING: dict[Budget, dict[str, Any]] = {"quick": {}, "full": {"steps": 1_000}}
"""Sizes of the runs that choose a lengthscale."""


class BalancedDomain(SphereDomain):
    """Events on the Earth that are reweighted, so that each attracts an equal share of the samples."""

    def __init__(self) -> None:
        super().__init__(balanced_field)

    def data_sampler(self, config: SphereConfig, data: Points) -> Sampler:
        """Sampler of indices of training points."""
        return resample(torch.arange(len(data.train)))


def balanced_field(config: SphereConfig, data: Points) -> BalancedField:
    """The field of batches, with training points reweighted."""
    return BalancedField(batch_field(config, data.train), data.train)


def mixture(lengthscale: float) -> Mixture:
    """The Laplace kernels of a lengthscale and of four times it, with equal weights."""
    return Mixture((Laplace(lengthscale), Laplace(4 * lengthscale)), (0.5, 0.5))


def ablation(budget: Budget = "quick", data_dir: Path | None = None) -> Table:
    """The table for a budget; data are looked for in `data_dir` as `drift_sphere.load` does."""
    domains = {MIXTURE: SphereDomain(partial(kernel_field, kernel=mixture)), BALANCED: BalancedDomain()}
    default = SphereDomain()
    sizes = {**default.recipes["earth"], **_SIZES[budget], "dataset": DATASET, "data_dir": data_dir}
    cells = {
        (row, DATASET): Cell(
            f"{DATASET}/{folder_name(row)}",
            domains.get(row, default),
            SphereConfig.of(**{**sizes, **settings}),
            lengthscale_candidates(LENGTHSCALES) if row == ONE else {},
            tuning_settings=_TUNING[budget],
        )
        for row, settings in VARIANTS.items()
    }
    return Table("ablation", "Ablation: one change of our default at a time", _about(budget), cells, QUALITY)


def _about(budget: Budget) -> str:
    return (
        f"{_scale(budget)} Our default has the gradient of the Laplace kernel, a lengthscale that falls "
        "from 2 to 0.002 radians, and batches until the nearest neighbours resolve the kernel; every other "
        f"row changes what it names. One lengthscale is that of {', '.join(LENGTHSCALES)} radians with the "
        "lowest unbiased MMD² on validation points. The series of spectral kernels are too long at 0.002: "
        "they fall to 0.02 and 0.05, and are to be compared with our default annealed to the same. The "
        "numerator of the displacement is the gradient of a Matern 3/2 kernel √3 times as long. What is "
        "balanced (`BalancedField`) has batches to the end."
    )


def _scale(budget: Budget) -> str:
    default, config = SphereDomain.recipes["earth"], SphereConfig()
    full = f"{default['steps']:,} steps of {config.batch.batch_size:,}"
    if budget == "full":
        return f"{full} in every row (`--recipe earth`)."
    sizes = _SIZES["quick"]
    return (
        f"The beginning of training: {sizes['steps']:,} steps of {sizes['batch_size']:,} in every row, where "
        f"`--recipe earth` has {full}."
    )
