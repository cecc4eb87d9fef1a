"""Points as CSV: rows of samples, and files of one's own points."""

import csv
from pathlib import Path

import numpy as np
import torch
from drift_core.files import atomic_path, read_text
from jaxtyping import Float, Float64
from torch import Tensor

from drift_synthetic.space import Space


def write_csv(path: str | Path, space: Space, points: Float[Tensor, "n d"]) -> None:
    """Write points under a header: the columns of the space, then those of its chart.

    Nine digits keep all of float32.
    """
    x = points.double()
    parts = [space.to_rows(x), *([space.chart(x)] if space.chart_columns else [])]
    with atomic_path(Path(path)) as part:
        header = ",".join((*space.columns, *space.chart_columns))
        rows = torch.cat(parts, dim=1).numpy()
        np.savetxt(part, rows, fmt="%.9g", delimiter=",", header=header, comments="")


def read_csv(path: str | Path, space: Space) -> Float64[Tensor, "n d"]:
    """Points of a CSV file whose header names the columns of the space, in any order; others are ignored.

    Blank lines are skipped. Points are projected to the space, off which nine digits lie a little.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the header lacks a column, or a row is short, not numeric or not a point of the space;
            the message names the file and the line.
    """
    path = Path(path)
    lines = [
        (number, [field.strip() for field in fields])
        for number, fields in enumerate(csv.reader(read_text(path, "a CSV file").splitlines()), start=1)
        if any(fields)
    ]
    if not lines:
        raise ValueError(f"{path}: empty; expected the columns {','.join(space.columns)}")
    (first, header), *rows = lines
    if missing := [name for name in space.columns if name not in header]:
        found = ",".join(header)
        raise ValueError(
            f"{path}, line {first}: expected the columns {','.join(space.columns)} of the {space.name}, "
            f"found {found:.80}, without {','.join(missing)}"
        )
    index = [header.index(name) for name in space.columns]
    values = [_numbers(path, line, fields, index, header) for line, fields in rows]
    table = torch.tensor(values, dtype=torch.float64).reshape(-1, len(index))
    points, valid = space.from_rows(table)
    if not bool(valid.all()):
        row = int((~valid).nonzero()[0])
        shown = ", ".join(f"{value:g}" for value in values[row])
        raise ValueError(f"{path}, line {rows[row][0]}: expected {space.expected}, found {shown}")
    return points


def _numbers(path: Path, line: int, fields: list[str], index: list[int], header: list[str]) -> list[float]:
    """Numbers of a row, in the order of the columns of the space."""
    if len(fields) != len(header):
        raise ValueError(f"{path}, line {line}: expected {len(header)} fields, found {len(fields)}")
    try:
        numbers = [float(fields[i]) for i in index]
    except ValueError:
        raise ValueError(f"{path}, line {line}: not numbers: {','.join(fields):.80}") from None
    if not np.isfinite(numbers).all():
        raise ValueError(f"{path}, line {line}: not finite: {','.join(fields):.80}")
    return numbers
