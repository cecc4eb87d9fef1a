"""Quality against training compute: one network evaluation a sample, and many of a flow."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from drift_core.runs.domain import Domain, Run
from drift_core.runs.metrics import Metric, Metrics
from drift_core.runs.study import Cell, Shown, Table, folder_name, on_test
from drift_core.seeds import generator_for

from drift_sphere.domain import SphereConfig, SphereDomain
from drift_sphere.flow_matching import flow_matching

Budget = Literal["quick", "full"]

DATASETS = ("earthquake",)

STEPS = {"quick": (250, 1_000), "full": (1_000, 4_000, 16_000)}
"""Training steps; the smaller numbers of evaluations are those of the most steps."""
EVALUATIONS = {"quick": (1, 10, 50), "full": (1, 10, 100)}

QUALITY = (
    Shown("mmd2_unbiased", "unbiased MMD²", digits=4, ratio=False),
    Shown("sinkhorn", "Sinkhorn"),
    Shown("nn_accuracy", "1-NN accuracy"),
    Shown("log_likelihood", "Log-likelihood of test points", "higher", digits=2, ratio=False),
)
METRICS = (
    *QUALITY,
    Shown("samples_per_second", "Samples a second, one core or GPU", "", digits=0, ratio=False),
)

_TIMED = 10_000


def compute(budget: Budget = "quick", data_dir: Path | None = None) -> Table:
    """The table for a budget; data are looked for in `data_dir` as `drift_sphere.load` does."""
    cells: dict[tuple[str, str], Cell] = {}
    for dataset in DATASETS:
        data = {"dataset": dataset, "data_dir": data_dir}
        (*shorter, longest), evaluated = STEPS[budget], EVALUATIONS[budget]
        for steps in STEPS[budget]:
            row = f"our default, {steps:,} steps, 1 evaluation"
            cells[row, dataset] = _cell(row, steps, data)
        due = [*((steps, evaluated[-1]) for steps in shorter), *((longest, k) for k in evaluated[::-1])]
        for steps, evaluations in due:
            row = f"flow matching, {steps:,} steps, {evaluations:,} evaluation{'s' * (evaluations > 1)}"
            maker = partial(flow_matching, evaluations=evaluations)
            cells[row, dataset] = _cell(row, steps, data, maker)
    return Table("compute", "One step against many: quality and training compute", _ABOUT, cells, METRICS)


_ABOUT = (
    "Our default (`--recipe earth`) beside Riemannian flow matching from uniform noise (Chen and Lipman "
    "2024), whose vector field is a residual network of the same width and depth, without a codebook, "
    "trained with the same optimiser, schedule, batch and moving average. An evaluation is a pass through "
    "the network; the flow is followed by as many steps of equal size."
)


def with_speed(domain: Domain[Any, Any, Any], run: Run[Any, Any, Any]) -> Metrics:
    """Metrics on test data, and samples a second."""
    found = on_test(domain, run)
    start = time.perf_counter()
    run.generator.sample(_TIMED, generator_for(0))
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    speed = _TIMED / (time.perf_counter() - start)
    return {**found, "samples_per_second": Metric(speed, 0.0, None, None)}


def _cell(
    row: str, steps: int, data: dict[str, Any], generator: Callable[..., torch.nn.Module] | None = None
) -> Cell:
    domain = SphereDomain()
    settings = {**domain.recipes["earth"], "steps": steps, "eval_draws": 20, **data}
    folder = f"{data['dataset']}/{folder_name(row)}"
    return Cell(folder, domain, SphereConfig.of(**settings), score=with_speed, generator=generator)
