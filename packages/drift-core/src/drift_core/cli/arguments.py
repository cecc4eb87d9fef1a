"""Parsing of command lines, and the examples of their help texts."""

import inspect
import io
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr
from typing import TypeVar

import tyro

T = TypeVar("T")


def with_examples(description: str | None, examples: Mapping[str, str]) -> str:
    """Description of a command, and its examples: flags with what they do."""
    text = inspect.cleandoc(description or "")
    return "\n".join([f"{text}\n\nExamples:", *example_lines(examples)]) if examples else text


def example_lines(examples: Mapping[str, str]) -> list[str]:
    """One line for each example: this program with the flags, and what they do."""
    width = max(map(len, examples))
    return [f"  {sys.argv[0]} {flags:<{width}}   {effect}" for flags, effect in examples.items()]


def parse(command: Callable[..., T], description: str | None = None) -> T:
    """Call a dataclass or a function with arguments from the command line.

    Raises:
        ValueError: invalid arguments; the message is one line.
    """
    printed = io.StringIO()
    try:
        with redirect_stderr(printed):
            return tyro.cli(command, description=description, config=(tyro.conf.OmitArgPrefixes,))
    except SystemExit as stop:
        if not stop.code:
            raise
        raise ValueError(_plain(printed.getvalue())) from None


def _plain(box: str) -> str:
    """Text of an error box of tyro, without its title, its frame (none in ASCII) and its hint about help."""
    kept: list[str] = []
    for line in (line.strip("│╰╯ ") for line in box.splitlines()[1:]):
        if line.startswith(("Argument helptext", "For full helptext")):
            break
        kept += [line] if line.strip("─-") else []
    return " ".join(" ".join(kept).split())
