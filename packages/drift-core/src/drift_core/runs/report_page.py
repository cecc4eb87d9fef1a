"""The report.html of a run: metrics beside floors, training curves, figures, settings, how to repeat it."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from drift_core.runs.chart import Chart
from drift_core.runs.config import DomainConfig
from drift_core.runs.domain import Domain
from drift_core.runs.environment import read_environment
from drift_core.runs.figures import LOGARITHMIC, PANELS, Record
from drift_core.runs.folder import read_config
from drift_core.runs.metrics import Metric, with_spread
from drift_core.runs.page import Cell, Figure, Section, Table, Text, write_page
from drift_core.training.config import Settings, to_json
from drift_core.training.records import read_records

REPORT = "report.html"

_DRAWN_AS_CHARTS = "training.png"


def write_report(
    domain: Domain[Any, Any, Any], folder: Path, config: DomainConfig, metrics: Mapping[str, Metric]
) -> None:
    """Write the report.html of a run, which `train_domain` and the evaluation do at their end.

    Args:
        domain: the domain of the run.
        folder: the run folder, whose log, figures and environment are shown.
        config: the settings of the run.
        metrics: what its metrics.json holds.

    Raises:
        ValueError: a file of the run is damaged.
        OSError: a file cannot be read or written.
    """
    environment = read_environment(folder)
    figures = [path for path in sorted(folder.glob("figures/*.png")) if path.name != _DRAWN_AS_CHARTS]
    sections = [
        Section("Metrics", [metrics_part(metrics)]),
        Section("Training", charts(read_records(folder))),
        Section("Figures", [Figure(path, path.stem.replace("_", " ")) for path in figures]),
        Section("Settings", [settings_part(config, domain.config_type()), *_changes(folder)]),
        Section("How to repeat it", reproduction(environment)),
        Section("Environment of the training", [_environment_part(environment)]),
    ]
    steps = f"{config.optimizer.steps:,} steps, seed {config.run.seed}"
    write_page(folder / REPORT, f"{domain.name}: {folder.resolve().name}", sections, f"A run of {steps}.")


def metrics_part(metrics: Mapping[str, Metric]) -> Table:
    """Table of metrics beside their floors, mean and standard deviation over draws."""
    rows = [
        (name, _spread(m.value, m.std), _spread(m.floor, m.floor_std), _ratio(m))
        for name, m in metrics.items()
    ]
    caption = "Mean ± standard deviation of one draw; the floor is what a perfect generator would score."
    return Table(("metric", "value", "floor", "value / floor"), rows, caption)


def _ratio(metric: Metric) -> Cell | None:
    return None if metric.ratio is None else Cell(f"{metric.ratio:.2f}", metric.ratio)


def _spread(value: float | None, std: float | None) -> Cell:
    """A value, to the second digit of its standard deviation if there is a spread."""
    if value is None or std is None or not math.isfinite(value + std):
        return Cell("undefined", math.nan)
    if std == 0:
        return Cell(f"{value:,.4f}", value)
    decimals = max(0, 1 - math.floor(math.log10(std)))
    return Cell(with_spread(value, std, f",.{decimals}f"), value)


def charts(records: Sequence[Record]) -> list[Chart]:
    """Charts of the logged values against the step: those of `training_figure`, then all others."""
    known = {key for panel in PANELS.values() for key in panel}
    others = dict.fromkeys(key for record in records for key in record if key not in known | {"step"})
    panels = {**PANELS, **{key.replace("_", " "): {key: key} for key in others}}
    return [
        Chart(
            title,
            {label: _points(records, key) for key, label in panel.items()},
            logarithmic=title in LOGARITHMIC,
        )
        for title, panel in panels.items()
        if any(_points(records, key) for key in panel)
    ]


def _points(records: Sequence[Record], key: str) -> list[tuple[float, float]]:
    """Logged (step, value), where there is a value."""
    found = ((record["step"], record.get(key)) for record in records)
    return [(float(step), float(value)) for step, value in found if step is not None and value is not None]


def settings_part(config: Settings, default: Settings) -> Table:
    """Table of the settings by group; those that differ from the defaults stand out."""
    rows = []
    for group, name, value, usual in _settings(to_json(config), to_json(default)):
        changed = value != usual
        rows.append((group, name, Cell(_shown(value), strong=changed), _shown(usual) if changed else ""))
    caption = "Marked settings differ from the default, which is then shown beside them."
    return Table(("group", "setting", "value", "default"), rows, caption)


def _settings(
    config: Mapping[str, Any], default: Mapping[str, Any], group: str = ""
) -> Iterator[tuple[str, str, Any, Any]]:
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _settings(value, default[name], name)
        else:
            yield group, name, value, default[name]


def _shown(value: Any) -> str:
    return "none" if value is None else str(value)


def _changes(folder: Path) -> list[Text]:
    """What changed when the run was resumed with other settings."""
    changes = read_config(folder).get("changes") or []
    return [Text("Changed while it was trained: " + "; ".join(map(str, changes)) + ".")] if changes else []


def reproduction(environment: Mapping[str, Any]) -> list[Text]:
    """The command that trains the run again."""
    program = environment.get("program", "TRAINING_PROGRAM")
    command = f"{program} --config RUN/config.json --out NEW"
    return [
        Text("RUN is the folder of this page, whose config.json holds all settings; NEW is a new folder."),
        Text(command, code=True),
    ]


def _environment_part(environment: Mapping[str, Any]) -> Table | Text:
    rows = [(name, str(value)) for name, value in environment.items() if name != "program"]
    return Table(("what", "value"), rows) if rows else Text("It was not recorded.")
