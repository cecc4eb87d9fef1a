"""Two reports, case by case."""

from pathlib import Path

from benchmarks.report import as_time, heading, read_report


def compare(old: Path, new: Path, tolerance: float) -> tuple[str, list[str]]:
    """Markdown table of the times of two reports, and the names of the cases that became slower.

    A case is slower if the new time of its first candidate exceeds the old one by more than the factor
    `tolerance`.

    Raises:
        OSError: a file is missing.
        ValueError: a file is not a report, or the two have no case in common.
    """
    before, after = read_report(old), read_report(new)
    times = {case.name: case.seconds for case in before.cases}
    shared = [(case.name, times[case.name], case.seconds) for case in after.cases if case.name in times]
    if not shared:
        raise ValueError(f"{old} and {new} have no case in common")
    rows = [
        f"| {name} | {as_time(a)} | {as_time(b)} | {b / a:.2f} |{' slower' if b / a > tolerance else ''} |"
        for name, a, b in shared
    ]
    rates = [
        f"| ceiling {name} | {a:.2e}/s | {b:.2e}/s | {a / b:.2f} | |"
        for name, a in before.ceilings.items()
        if (b := after.ceilings.get(name))
    ]
    table = ["| case | old | new | new / old | |", "|---" * 5 + "|", *rows, *rates]
    lines = [f"old: {heading(before)}", f"new: {heading(after)}", "", *table]
    return "\n".join(lines), [name for name, a, b in shared if b / a > tolerance]
