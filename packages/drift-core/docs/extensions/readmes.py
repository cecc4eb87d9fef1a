"""Pages made of the repository's READMEs, so that each text has one source; links lead to the site's pages.

A line `<!-- include FILE -->` stands for the Markdown file, whose path is that of the repository, and
`<!-- include FILE from HEADING -->` for its part from a heading of the second level on.
"""

import os
import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

DOCS = Path(__file__).parents[1]
ROOT = DOCS.parents[2]

PAGES = {
    ROOT / "README.md": "/applications.md",
    ROOT / "CHANGELOG.md": "/changelog.md",
    ROOT / ".github" / "CONTRIBUTING.md": "/contributing.md",
    DOCS.parent / "examples" / "gallery": "/gallery/index.rst",
    **dict.fromkeys(ROOT.glob("packages/*/results/*.md"), "/results.md"),
    **{card: f"/packages/{card.parents[2].name}.md" for card in ROOT.glob("packages/*/models/*/README.md")},
    **{readme: f"/packages/{readme.parent.name}.md" for readme in ROOT.glob("packages/*/README.md")},
}
"""Pages of the site that stand for files and folders."""

_INCLUDE = re.compile(r"^<!-- include (\S+?)(?: from (.+))? -->$", re.MULTILINE)
_CODE = re.compile(r"^```.*?^```$|`[^`\n]+`", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?(?=\))")


def read(app: Sphinx, docname: str, source: list[str]) -> None:
    """Include files, and let relative links lead to pages, of the source of a Markdown page."""
    page = Path(app.env.doc2path(docname))
    if page.suffix != ".md" or not page.is_relative_to(DOCS):
        return

    def included(found: re.Match[str]) -> str:
        path = ROOT / found.group(1)
        app.env.note_dependency(str(path))
        return relinked(part(path.read_text(), found.group(2)), path, page)

    source[0] = _INCLUDE.sub(included, relinked(source[0], page, page))


def part(text: str, heading: str | None) -> str:
    """Markdown text from a heading on, or all of it. Raises ValueError if there is no such heading."""
    if heading is None:
        return text
    if (start := text.find(f"\n## {heading}\n")) < 0:
        raise ValueError(f"there is no heading {heading!r}")
    return text[start:]


def relinked(text: str, origin: Path, page: Path) -> str:
    """Text of the file `origin` whose relative links work on `page`, outside of code."""

    def link(found: re.Match[str]) -> str:
        start, target, anchor = found.groups(default="")
        return found.group() if ":" in target else f"{start}{place(origin, target, page)}{anchor}"

    pieces, end = [], 0
    for code in _CODE.finditer(text):
        pieces += [_LINK.sub(link, text[end : code.start()]), code.group()]
        end = code.end()
    return "".join([*pieces, _LINK.sub(link, text[end:])])


def place(origin: Path, target: str, page: Path) -> str:
    """Where a link of the file `origin` leads from `page`: a page of the site, or a file for download."""
    path = Path(os.path.normpath(origin.parent / target))
    return PAGES.get(path) or PAGES.get(path / "README.md") or os.path.relpath(path, page.parent)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the event."""
    app.connect("source-read", read)
    return {"parallel_read_safe": True}
