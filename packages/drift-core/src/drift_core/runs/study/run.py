"""Run a table, and write what it found."""

from pathlib import Path

from drift_core.files import write_json
from drift_core.runs.study.figure import table_figure
from drift_core.runs.study.grids import report_of
from drift_core.runs.study.report import StudyReport
from drift_core.runs.study.table import Table, as_json, fill_table


def run_table(table: Table, out: Path, workers: int) -> StudyReport:
    """Choose, train and score all cells; write <name>.json, <name>.md and figures/<name>.png under `out`.

    A study that was stopped goes on run by run. Raises as `check_data` and `run_trials`.
    """
    findings, figure = fill_table(table, out, workers), out / "figures" / f"{table.name}.png"
    write_json(out / f"{table.name}.json", as_json(findings))
    table_figure(findings, figure)
    report = report_of(findings, figure)
    report.write(out / f"{table.name}.md")
    return report
