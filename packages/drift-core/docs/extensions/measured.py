"""Pages of what the working tree holds: studies of `reproduce.py` and the newest report of `benchmark.py`.

A line `<!-- study NAME -->` stands for the tables and figures of runs/reproduce/NAME, or for the tables of
packages/*/results/NAME.md, and `<!-- benchmark -->` for the newest runs/benchmark/*.json. Where there is
none, the page says which command makes it.
"""

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

ROOT = Path(__file__).parents[4]


def read(app: Sphinx, docname: str, source: list[str]) -> None:
    """Replace the lines of a page that stand for studies and benchmarks."""
    runs, page = Path(app.config.drift_runs), Path(app.env.doc2path(docname))

    def study_of(found: re.Match[str]) -> str:
        return study(runs / "reproduce" / found.group(1), page, app)

    source[0] = re.sub(r"^<!-- study (\S+) -->$", study_of, source[0], flags=re.MULTILINE)
    if "<!-- benchmark -->" in source[0]:
        source[0] = source[0].replace("<!-- benchmark -->", benchmark(runs / "benchmark", page, app))


def study(folder: Path, page: Path, app: Sphinx) -> str:
    """Markdown of a study: the text and the tables that it wrote beside its JSON, and its figures.

    Without a study in the working tree they are the tables that a package keeps in results/.
    """
    what, _, budget = folder.name.partition("-")
    data, text = folder / f"{what}.json", folder / f"{what}.md"
    if not (data.is_file() and text.is_file()):
        kept = next(ROOT.glob(f"packages/*/results/{folder.name}.md"), None)
        command = f"uv run apps/reproduce.py {what} --budget {budget}"
        return absent(command) if kept is None else f"{tables_of(kept, app)}\nMade by `{command}`.\n"
    table = tables_of(text, app)
    values = f"All values, over seeds: [{data.name}]({os.path.relpath(data, page.parent)})."
    return f"{table}\n{values}\n{figures(sorted(folder.glob('figures/*.png')), page)}"


def tables_of(text: Path, app: Sphinx) -> str:
    """What a study wrote, below its title, which the page has."""
    app.env.note_dependency(str(text))
    return text.read_text().partition("\n")[2].replace(" ± ", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}")


def figures(paths: Sequence[Path], page: Path) -> str:
    """Markdown of figures, named by their files; several are folded away."""
    shown = "".join(
        f"\n*{path.stem.replace('-', ' ')}*\n\n![]({os.path.relpath(path, page.parent)})\n" for path in paths
    )
    several = f"\n<details>\n<summary>{len(paths)} figures</summary>\n{shown}\n</details>\n"
    return several if len(paths) > 1 else shown


def benchmark(folder: Path, page: Path, app: Sphinx) -> str:
    """Markdown of the newest report of the benchmark: its tables, claims and plot."""
    sys.path.insert(0, str(ROOT / "apps"))
    from benchmarks.claims import claims_table
    from benchmarks.plot import draw
    from benchmarks.report import read_report, tables

    reports = sorted(folder.glob("*.json"))
    if not reports:
        return absent("uv run --with pykeops apps/benchmark.py run")
    report, plot = read_report(reports[-1]), reports[-1].with_suffix(".png")
    app.env.note_dependency(str(reports[-1]))
    if not plot.is_file():
        draw(report, plot)
    path = os.path.relpath(plot, page.parent)
    picture = f"![Times and memory as sizes grow]({path})\n\n[The same in full size]({path})"
    return "\n\n".join([claims_table(report), picture, tables(report)])


def absent(command: str) -> str:
    """Note that something has not been measured, with the command that does it."""
    return (
        f"Not measured in this working tree. This does; then build the site again.\n\n```sh\n{command}\n```\n"
    )


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the event, and the folder of runs."""
    app.add_config_value("drift_runs", str(ROOT / "runs"), "env", str)
    app.connect("source-read", read)
    return {"parallel_read_safe": True}
