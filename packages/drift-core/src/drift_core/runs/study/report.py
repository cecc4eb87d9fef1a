"""What a study shows, as Markdown and as a section of a page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from drift_core.files import atomic_path
from drift_core.runs.page import Figure, Section, Table, Text, write_page


@dataclass(frozen=True)
class StudyReport:
    """Text, tables and figures of a study. Captions of tables stand above them."""

    title: str
    paragraphs: Sequence[str]
    tables: Sequence[Table]
    figures: Sequence[Figure] = ()

    @property
    def markdown(self) -> str:
        """Text and tables; what stands out is bold."""
        parts = [f"**{self.title}**", *self.paragraphs]
        for table in self.tables:
            parts += [f"**{table.caption}**"] * bool(table.caption) + [_markdown(table)]
        return "\n\n".join(parts) + "\n"

    @property
    def section(self) -> Section:
        """Text, tables and figures."""
        texts = [Text(paragraph.replace("`", "")) for paragraph in self.paragraphs]
        return Section(self.title, [*texts, *self.tables, *self.figures])

    def write(self, path: Path) -> None:
        """Write the Markdown, atomically."""
        with atomic_path(path) as part:
            part.write_text(self.markdown)


def write_study(path: Path, reports: Sequence[StudyReport], skipped: Mapping[str, str], command: str) -> None:
    """Write the page of studies.

    Args:
        path: the HTML file.
        reports: what was found.
        skipped: why other studies were left out, by name.
        command: the command that makes the page again.

    Raises OSError if a figure cannot be read, or the file cannot be written.
    """
    sections = [report.section for report in reports]
    if skipped:
        rows = [(name, reason) for name, reason in skipped.items()]
        sections.append(Section("Not run", [Table(("study", "reason"), rows)]))
    sections.append(Section("How to repeat it", [Text(command, code=True)]))
    write_page(path, "Kernel-gradient drifting: tables and figures of the paper", sections)


def _markdown(table: Table) -> str:
    rows = [[f"**{c.text}**" if c.strong else c.text for c in cells] for cells in table.cells]
    head, *body = (f"| {' | '.join(cells)} |" for cells in [list(table.columns), *rows])
    return "\n".join([head, "|---" * len(table.columns) + "|", *body])
