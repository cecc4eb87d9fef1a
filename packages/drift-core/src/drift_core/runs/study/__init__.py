"""Studies: cells trained with several seeds, resumed run by run, and collected to tables and figures."""

from drift_core.runs.study.cells import (
    TUNING_SEED,
    Cell,
    Choice,
    choose,
    folder_name,
    lengthscale_candidates,
    run_seeds,
)
from drift_core.runs.study.report import StudyReport, write_study
from drift_core.runs.study.run import run_table
from drift_core.runs.study.statistics import Estimate, differ, estimate, paired_p_value
from drift_core.runs.study.table import Findings, Shown, Table, check_data, fill_table
from drift_core.runs.study.trials import (
    Cost,
    Result,
    Trial,
    mean_cost,
    on_test,
    on_validation,
    run_group,
    run_trials,
)

__all__ = [
    "TUNING_SEED",
    "Cell",
    "Choice",
    "Cost",
    "Estimate",
    "Findings",
    "Result",
    "Shown",
    "StudyReport",
    "Table",
    "Trial",
    "check_data",
    "choose",
    "differ",
    "estimate",
    "fill_table",
    "folder_name",
    "lengthscale_candidates",
    "mean_cost",
    "on_test",
    "on_validation",
    "paired_p_value",
    "run_group",
    "run_seeds",
    "run_table",
    "run_trials",
    "write_study",
]
