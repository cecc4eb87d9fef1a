"""Run cases, and collect what was measured."""

from collections.abc import Iterator, Sequence

from tqdm.auto import tqdm

from benchmarks.case import Case
from benchmarks.machine import ceilings, machine
from benchmarks.points import skipped
from benchmarks.report import Measured, Report, Result
from benchmarks.timing import Timing, extra_memory, median_times


def measure(cases: Sequence[Case], repeats: int, device: str) -> Report:
    """Measure the machine's ceilings, then every case; a progress bar names the case."""
    about, limits = machine(device), ceilings(device, repeats)
    return Report(about, limits, list(_results(cases, repeats, device)), skipped())


def _results(cases: Sequence[Case], repeats: int, device: str) -> Iterator[Result]:
    with tqdm(cases, desc="benchmark", unit="case") as bar:
        for case in bar:
            bar.set_postfix_str(case.name)
            yield _result(case, repeats, device)


def _result(case: Case, repeats: int, device: str) -> Result:
    times = median_times(case.build(), repeats)
    first = next(iter(times.values()))
    measured = {
        name: Measured(
            seconds=timing.seconds,
            ratio=timing.seconds / first.seconds,
            memory=extra_memory(case.build, name, device) if name in case.memory else None,
            error=_error(timing, first) if case.same else None,
        )
        for name, timing in times.items()
    }
    return Result(case.group, case.name, case.sizes, measured)


def _error(timing: Timing, first: Timing) -> float:
    """Relative difference between two results."""
    return float((timing.result - first.result).norm() / first.result.norm())
