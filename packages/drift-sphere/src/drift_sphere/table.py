"""Tables of latitude and longitude: reading and writing CSV files."""

import csv
import re
from array import array
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import torch
from drift_core.files import atomic_path, read_text
from jaxtyping import Float64
from torch import Tensor

MIN_ROWS = 10
"""The fewest rows that can be split 80/10/10."""

_LATITUDE = {"lat", "latitude"}
_LONGITUDE = {"lon", "long", "lng", "longitude"}

Row = tuple[int, list[str]]
"""A line number, counted from 1, and the fields of that line."""


def read_csv(path: str | Path) -> Float64[Tensor, "n 2"]:
    """Read latitude in [-90, 90] and longitude in [-180, 180], in degrees, one event per row.

    Lines that start with '#' and blank lines are skipped, and so are the lines without a number
    before the first row. If one of these names a latitude and a longitude column (lat, latitude;
    lon, long, lng, longitude; any case), those columns are read, in any order, and others are
    ignored; without names a row is exactly latitude, longitude. Longitudes up to 360 are wrapped.

    Raises FileNotFoundError if there is no such file, and ValueError, with one line that names the
    file and where possible the line, if the file is not UTF-8, a row is short, long, not numeric, not
    finite or out of range, or there are fewer than 10 rows.
    """
    path = Path(path)
    rows = _rows(path, read_text(path, "a CSV file"))
    columns, first = _columns(path, rows)
    lines, latlon = _numbers(path, chain(first, rows), columns)
    if len(lines) < MIN_ROWS:
        found = f"{len(lines)} row" + "s" * (len(lines) != 1)
        raise ValueError(f"{path}: {found} of data; at least {MIN_ROWS} are needed to split 80/10/10")
    return _checked(path, lines, torch.frombuffer(latlon, dtype=torch.float64).reshape(-1, 2))


def write_csv(path: str | Path, latlon: Float64[Tensor, "n 2"]) -> None:
    """Write latitude and longitude in degrees, to 1e-6 degrees (11 cm), under a header line."""
    with atomic_path(Path(path)) as part, part.open("w", encoding="utf-8", newline="") as file:
        file.write("latitude,longitude\n")
        file.writelines(f"{latitude:.6f},{longitude:.6f}\n" for latitude, longitude in latlon.tolist())


def _rows(path: Path, text: str) -> Iterator[Row]:
    """Line numbers and fields of the lines that are neither blank nor comments."""
    numbers = array("q")

    def content() -> Iterator[str]:
        for number, line in enumerate(re.split("\r\n|\r|\n", text), start=1):
            if line.strip() and not line.lstrip().startswith("#"):
                numbers.append(number)
                yield line

    reader = csv.reader(content())
    try:
        for fields in reader:
            yield numbers[-1], fields
    except csv.Error as error:
        raise ValueError(f"{path}, line {numbers[-1]}: {error}") from None


def _columns(path: Path, rows: Iterator[Row]) -> tuple[tuple[int, int, int], list[Row]]:
    """Skip the header; return (latitude, longitude, number of columns) and the rows of data read."""
    for line, fields in rows:
        if any(_is_number(field) for field in fields):
            return (0, 1, 2), [(line, fields)]
        names = [field.strip().lower() for field in fields]
        latitude = next((i for i, name in enumerate(names) if name in _LATITUDE), None)
        longitude = next((i for i, name in enumerate(names) if name in _LONGITUDE), None)
        if latitude is not None and longitude is not None:
            return (latitude, longitude, len(fields)), []
        if latitude is not None or longitude is not None:
            raise ValueError(f"{path}, line {line}: names latitude or longitude, but not both: {fields}")
    return (0, 1, 2), []


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _numbers(
    path: Path, rows: Iterable[Row], columns: tuple[int, int, int]
) -> tuple["array[int]", "array[float]"]:
    """The line numbers, and latitude and longitude in turn, of rows of data."""
    latitude, longitude, count = columns
    lines, latlon = array("q"), array("d")
    for line, fields in rows:
        if len(fields) != count:
            hint = "" if count > 2 else " (latitude, longitude; name them in a header if there are others)"
            raise ValueError(f"{path}, line {line}: number of columns is {len(fields)}, not {count}{hint}")
        try:
            latlon.extend((float(fields[latitude]), float(fields[longitude])))
        except ValueError:
            pair = f"{fields[latitude]!r}, {fields[longitude]!r}"
            raise ValueError(f"{path}, line {line}: not numbers of degrees: {pair:.80}") from None
        lines.append(line)
    return lines, latlon


def _checked(path: Path, lines: "array[int]", latlon: Float64[Tensor, "n 2"]) -> Float64[Tensor, "n 2"]:
    """Wrap longitudes above 180 degrees, and refuse rows that are not finite or out of range."""
    latitude, longitude = latlon.unbind(-1)
    for name, column, low, high in (("latitude", latitude, -90, 90), ("longitude", longitude, -180, 360)):
        bad = ~((column >= low) & (column <= high))
        if bad.any():
            row = int(bad.nonzero()[0])
            value = f"{name} {column[row]:g} is not in [{low}, {high}]"
            raise ValueError(f"{path}, line {lines[row]}: {value} degrees")
    return torch.stack((latitude, torch.where(longitude > 180, longitude - 360, longitude)), dim=-1)
