"""The list of external links: the build writes external-links.txt beside the pages, and requests none."""

from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx


def write(app: Sphinx, error: Exception | None) -> None:
    """Write each address, and the pages that link to it."""
    if error or app.builder.format != "html":
        return
    found: dict[str, set[str]] = {}
    for docname in app.env.all_docs:
        for node in app.env.get_doctree(docname).findall(nodes.reference):
            if node.get("refuri", "").startswith(("http://", "https://")):
                found.setdefault(node["refuri"], set()).add(docname)
    lines = [f"{address}  {', '.join(sorted(pages))}\n" for address, pages in sorted(found.items())]
    Path(app.outdir, "external-links.txt").write_text("".join(lines))


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the event."""
    app.connect("build-finished", write)
    return {"parallel_read_safe": True}
