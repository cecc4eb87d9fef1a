"""Pages of tables, figures and charts: self-contained HTML files, for which a browser makes no request."""

import base64
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from jinja2 import Environment, PackageLoader, StrictUndefined

from drift_core.files import atomic_path
from drift_core.runs.chart import Chart


@dataclass(frozen=True)
class Cell:
    """A cell of a table."""

    text: str
    order: float | str | None = None
    """What the column is sorted by; none: the text. Missing values, NaN, come last."""
    strong: bool = False
    """Whether the cell stands out."""
    link: str | None = None
    """Address that the text leads to, relative to the page."""

    @classmethod
    def of(cls, value: "Value") -> "Cell":
        """Cell of a value: numbers with four digits; a dash for None and NaN."""
        if isinstance(value, Cell):
            return value
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return cls("–", math.nan)
        if isinstance(value, bool | str):
            return cls(str(value))
        return cls(f"{value:,}" if isinstance(value, int) else f"{value:.4g}", float(value))

    @property
    def key(self) -> str:
        """What the script of the page compares; empty if missing."""
        missing = isinstance(self.order, float) and math.isnan(self.order)
        return "" if missing else str(self.text if self.order is None else self.order)


Value = Cell | str | float | int | None
"""What a cell of a table is made of."""


@dataclass(frozen=True)
class Table:
    """A table that the reader can sort by each column."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Value]]
    caption: str = ""
    kind: ClassVar[str] = "table"

    @cached_property
    def cells(self) -> list[list[Cell]]:
        """Cells of each row. Raises ValueError for a row with more or fewer of them than columns."""
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"expected {len(self.columns)} cells in a row, got {len(row)}")
        return [[Cell.of(value) for value in row] for row in self.rows]

    @cached_property
    def numeric(self) -> list[bool]:
        """Whether each column holds numbers alone."""
        columns = zip(*self.cells, strict=True) if self.rows else [() for _ in self.columns]
        return [bool(column) and all(isinstance(c.order, int | float) for c in column) for column in columns]


@dataclass(frozen=True)
class Figure:
    """A PNG file, which is embedded in the page."""

    path: Path
    caption: str
    kind: ClassVar[str] = "figure"

    @property
    def source(self) -> str:
        """The file as a data URI. Raises OSError if it cannot be read."""
        return "data:image/png;base64," + base64.b64encode(self.path.read_bytes()).decode()


@dataclass(frozen=True)
class Text:
    """A paragraph, or lines of code."""

    text: str
    code: bool = False
    kind: ClassVar[str] = "text"


Part = Table | Figure | Chart | Text


@dataclass(frozen=True)
class Section:
    """A titled part of a page; neighbouring charts share rows where the screen is wide enough."""

    title: str
    parts: Sequence[Part]


def write_page(path: Path, title: str, sections: Sequence[Section], lead: str = "") -> None:
    """Write a page, atomically, as one HTML file.

    It follows the reader's choice of light or dark and the width of the screen. All text is escaped, and a
    content security policy forbids requests and scripts other than the page's own.

    Args:
        path: the file.
        title: title of the page.
        sections: what it shows.
        lead: sentence below the title.

    Raises:
        OSError: a figure cannot be read, or the file cannot be written.
    """
    environment = Environment(
        loader=PackageLoader("drift_core.runs"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = environment.get_template("page.js").render()
    page = environment.get_template("page.html").render(
        title=title, lead=lead, sections=sections, script=script, script_digest=_digest(script)
    )
    with atomic_path(path) as part:
        part.write_text(page, encoding="utf-8")


def _digest(script: str) -> str:
    """Digest by which a content security policy allows a script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
