"""The directive `public`: all that a module offers, grouped by the part of the package it comes from."""

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from dataclasses import is_dataclass
from itertools import groupby
from types import ModuleType
from typing import Any, get_type_hints

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.ext.napoleon import GoogleDocstring
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import nested_parse_with_titles

PACKAGES = ("drift_core", "drift_simplex", "drift_sphere", "drift_synthetic", "drift_qm9", "drift_promoter")


class Public(SphinxDirective):
    """Documents all public names of a module: those of its `__all__`, else those that it defines."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Parse a section for each part, and an entry for each name."""
        section = nodes.section()
        lines = StringList(list(reference(self.arguments[0])), source=self.arguments[0])
        nested_parse_with_titles(self.state, lines, section)
        return section.children


def reference(name: str) -> Iterator[str]:
    """reStructuredText of the public names of a module."""
    module = importlib.import_module(name)
    yield from (f".. py:module:: {name}", "", first_line(module), "")
    homes = dict(homes_of(module))
    for part, names in groupby(homes, key=lambda public: part_of(name, homes[public])):
        if part != name:
            title = part.removeprefix(f"{name}.")
            yield from (title, "-" * len(title), "", first_line(importlib.import_module(part)), "")
        for public in names:
            yield from entry(module, public, homes[public])


def homes_of(module: ModuleType) -> Iterator[tuple[str, str]]:
    """Each public name with the module that defines it, in the order of the source."""
    exported = getattr(module, "__all__", ())
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.ImportFrom):
            names = [alias.name for alias in node.names if alias.name in exported]
            yield from ((name, home(node.module or "", name)) for name in names)
        elif isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            yield node.name, module.__name__


def home(module: str, name: str) -> str:
    """Module that defines a name which `module` has, perhaps from another."""
    found: str = getattr(getattr(importlib.import_module(module), name), "__module__", None) or module
    return found if found.startswith(module.partition(".")[0]) else module


def part_of(module: str, origin: str) -> str:
    """Part of a package to which a module belongs: drift_core.manifold for drift_core.manifold.sphere."""
    rest = origin.removeprefix(module).lstrip(".").partition(".")[0]
    return f"{module}.{rest}" if rest and origin.startswith(module) else origin


def entry(module: ModuleType, name: str, origin: str) -> Iterator[str]:
    """Entry of a class, a function or a constant, whose docstring stands below it in its module."""
    value, full, package = (
        getattr(module, name),
        f"{module.__name__}.{name}",
        module.__name__.partition(".")[0],
    )
    if module.__name__ != package and name in importlib.import_module(package).__all__:
        yield from (f":py:obj:`{package}.{name}` is documented there.", "")
    elif inspect.isclass(value):
        if is_dataclass(value):
            without_ranges(value)
        yield from (f".. autoclass:: {full}", "   :members:", "")
    elif inspect.isroutine(value):
        yield from (f".. autofunction:: {full}", "")
    else:
        documented = ModuleAnalyzer.for_module(origin).find_attr_docs().get(("", name), [])
        yield from (f".. py:data:: {name}", "", *(f"   {line}" for line in documented), "")


def without_ranges(cls: type) -> None:
    """Replace the types of fields that are annotated with ranges and flags by the plain types."""
    for annotated in (cls, cls.__init__):
        hints = get_type_hints(annotated)
        annotated.__annotations__ = {name: hints[name] for name in annotated.__annotations__}


def first_line(module: ModuleType) -> str:
    """First line of a module's docstring."""
    return (module.__doc__ or "").partition("\n")[0]


def marked_up(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Docstrings as reStructuredText: prose stays as it is (|V|, x*, w_), public names become links."""
    text = re.split(r"`([^`]+)`", "\n".join(lines))
    text[::2] = [re.sub(r"([|*\\]|_(?=\W|$))", r"\\\1", prose) for prose in text[::2]]
    text[1::2] = [code_or_link(code.replace("\n", " "), name.partition(".")[0]) for code in text[1::2]]
    # Of an attribute the parser would take what stands before a colon for its type.
    what = "" if what in ("attribute", "property", "data") else what
    lines[:] = GoogleDocstring("".join(text), what=what, name=name, obj=obj).lines()


def code_or_link(code: str, package: str) -> str:
    """A link to a public name, of the package where others have it, too, or to a part of one; else code."""
    name, _, member = code.partition(".")
    if not re.fullmatch(r"[\w.]+", code):
        return f":code:`{code}`"
    for home in (package, *PACKAGES):
        module = importlib.import_module(home)
        if name in module.__all__ and (not member or inspect.isclass(getattr(module, name))):
            return f":py:obj:`~{home}.{code}`"
    return f":code:`{code}`"


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive and the hook."""
    app.add_directive("public", Public)
    app.connect("autodoc-process-docstring", marked_up)
    return {"parallel_read_safe": True}
