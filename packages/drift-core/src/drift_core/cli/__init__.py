"""Command-line applications: `train(MyDomain())` trains; `sample`, `evaluate`, `report` use runs."""

from drift_core.cli.arguments import example_lines, parse, with_examples
from drift_core.cli.errors import as_flags, run
from drift_core.cli.finished import (
    EvaluateCommand,
    ReportCommand,
    SampleCommand,
    domain_of,
    evaluate,
    report,
    sample,
)
from drift_core.cli.training import parse_training, train

__all__ = [
    "EvaluateCommand",
    "ReportCommand",
    "SampleCommand",
    "as_flags",
    "domain_of",
    "evaluate",
    "example_lines",
    "parse",
    "parse_training",
    "report",
    "run",
    "sample",
    "train",
    "with_examples",
]
