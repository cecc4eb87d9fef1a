"""The code keeps its proportions: short functions, small classes, names that modules keep to themselves."""

import ast
from collections.abc import Iterator
from pathlib import Path

from drift_core.engine import build

ROOT = Path(__file__).parents[1]
SOURCES = sorted([*ROOT.glob("packages/*/src/**/*.py"), *ROOT.glob("apps/**/*.py")])
COMMAND_LINE = ("cli", "__main__.py", "report_page.py")


def nodes(*kinds: type[ast.AST]) -> Iterator[tuple[Path, ast.AST]]:
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, kinds):
                yield path.relative_to(ROOT), node


def lengths() -> dict[str, int]:
    """Lines of every function, its docstring included."""
    return {f"{path}:{f.name}": f.end_lineno - f.lineno + 1 for path, f in nodes(ast.FunctionDef)}


def test_functions_are_short():
    found = lengths()
    assert {name: lines for name, lines in found.items() if lines > 50} == {}
    (train,) = (lines for name, lines in found.items() if name.endswith("training/loop.py:train"))
    assert train <= 45
    assert sorted(found.values())[int(0.9 * len(found))] <= 18


def test_classes_are_small():
    methods = {
        f"{path}:{c.name}": sum(isinstance(part, ast.FunctionDef) for part in c.body)
        for path, c in nodes(ast.ClassDef)
    }
    assert {name: count for name, count in methods.items() if count > 14} == {}


def test_modules_keep_their_private_names():
    imported = [
        f"{path}: {alias.name}"
        for path, node in nodes(ast.ImportFrom)
        for alias in node.names
        if alias.name.startswith("_")
    ]
    assert imported == []


def test_core_names_no_flag_of_a_command_line():
    """Messages name settings in backticks, which the command line makes flags; reports show a command.

    Flags of the C compiler are not ours.
    """
    texts = [
        f"{path}: {node.value}"
        for path, node in nodes(ast.Constant)
        if "drift_core" in str(path)
        and not set(COMMAND_LINE).intersection(path.parts)
        and isinstance(node.value, str)
        and node.value not in build.FLAGS
    ]
    assert [text for text in texts if " --" in text or ": --" in text] == []


def test_what_a_user_composes_is_imported_from_one_place():
    from drift_core import (
        BalancedField,
        Batch,
        Domain,
        Drift,
        Field,
        KernelField,
        NearestField,
        PullbackField,
        SumField,
    )

    composed = (BalancedField, Domain, KernelField, NearestField, PullbackField, SumField)
    assert all(callable(name) for name in (*composed, Batch, Drift, Field))
