"""The log of a run: metrics.jsonl, one object per logged step."""

import json
from pathlib import Path
from typing import Any

RECORDS = "metrics.jsonl"


def read_records(run: Path) -> list[dict[str, Any]]:
    """Logged steps of a run, oldest first; a last line cut short by a crash is left out.

    Raises:
        ValueError: another line is damaged.
    """
    path = run / RECORDS
    lines = path.read_bytes().splitlines() if path.exists() else []
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if isinstance(record, dict) and isinstance(record.get("step"), int):
            records.append(record)
        elif number < len(lines):
            raise ValueError(f"{path}, line {number}: damaged; `resume` writes the log again")
    return records
