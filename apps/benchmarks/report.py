"""What was measured, as a JSON file and as tables."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from drift_core.files import write_json


class Measured(NamedTuple):
    """Measurements of a candidate."""

    seconds: float
    """Median of its runs."""
    ratio: float
    """Its time over that of the first candidate."""
    memory: float | None = None
    """MB that a run adds at its peak, if measured."""
    error: float | None = None
    """Relative difference from the result of the first candidate, if they compute the same."""


class Result(NamedTuple):
    """Measurements of a case; the first candidate is the one under test, the others are its baselines."""

    group: str
    name: str
    sizes: dict[str, int]
    candidates: dict[str, Measured]

    @property
    def seconds(self) -> float:
        """Time of the candidate under test."""
        return next(iter(self.candidates.values())).seconds


class Report(NamedTuple):
    """Everything that was measured on a machine."""

    machine: dict[str, Any]
    ceilings: dict[str, float]
    """sgemm_flops, copy_bytes and exps, per second."""
    cases: list[Result]
    skipped: dict[str, str]
    """Candidates that the machine lacks, and why."""

    def find(self, case: str, candidate: str) -> Measured | None:
        """Measurements of a candidate of a case."""
        found = (result.candidates.get(candidate) for result in self.cases if result.name == case)
        return next(found, None)


def write_report(path: Path, report: Report) -> None:
    """Write a report as JSON."""
    cases = [
        result._asdict() | {"candidates": {name: m._asdict() for name, m in result.candidates.items()}}
        for result in report.cases
    ]
    write_json(path, report._asdict() | {"cases": cases})


def read_report(path: Path) -> Report:
    """Read a report.

    Raises:
        OSError: there is no such file.
        ValueError: the file is not a report.
    """
    try:
        value = json.loads(path.read_text())
        cases = [_result(case) for case in value["cases"]]
        ceilings = {str(name): float(rate) for name, rate in value["ceilings"].items()}
        return Report(dict(value["machine"]), ceilings, cases, dict(value["skipped"]))
    except KeyError as error:
        raise ValueError(f"{path} is not a report of benchmark.py: it lacks {error}") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a report of benchmark.py: {error}") from None


def _result(case: dict[str, Any]) -> Result:
    candidates = {name: Measured(**measured) for name, measured in case["candidates"].items()}
    if not candidates or not all(measured.seconds > 0 for measured in candidates.values()):
        raise ValueError(f"{case['name']} has no times")
    return Result(case["group"], case["name"], case["sizes"], candidates)


def heading(report: Report) -> str:
    """A line on the machine and its ceilings."""
    about, rates = report.machine, report.ceilings
    return (
        f"{about['processor']}, {about['threads']} threads of {about['cores']} cores, "
        f"torch {about['torch']}, load {about['load']}; sgemm {rates['sgemm_flops'] / 1e9:,.0f} GFLOP/s, "
        f"copy {rates['copy_bytes'] / 1e9:,.1f} GB/s, {rates['exps'] / 1e9:,.2f} G exp/s"
    )


def tables(report: Report) -> str:
    """Markdown: a table of every case, with times, ratios to its first candidate, memory and errors."""
    parts = [heading(report)]
    for result in report.cases:
        rows = [_row(name, measured) for name, measured in result.candidates.items()]
        parts.append(
            "\n".join([f"| {result.name} | time | ratio | memory | off by |", "|---" * 5 + "|", *rows])
        )
    parts += [f"{name} skipped: {reason}" for name, reason in report.skipped.items()]
    return "\n\n".join(parts)


def _row(name: str, measured: Measured) -> str:
    memory = "" if measured.memory is None else f"{measured.memory:,.1f} MB"
    error = f"{measured.error:.0e}" if measured.error else ""
    return f"| {name} | {as_time(measured.seconds)} | {measured.ratio:,.1f} | {memory} | {error} |"


def as_time(seconds: float) -> str:
    """A time in ms or, from ten seconds on, in s."""
    if seconds >= 10:
        return f"{seconds:,.1f} s"
    return f"{1e3 * seconds:,.{0 if seconds >= 0.1 else 1 if seconds >= 1e-3 else 3}f} ms"
