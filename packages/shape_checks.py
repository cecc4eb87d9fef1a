"""beartype for the import hooks of the tests: at the pace of code that defines functions in functions."""

import inspect
from collections.abc import Callable, Hashable
from typing import Any

from beartype import beartype

_CHECKS: dict[Hashable, Callable[..., Any]] = {}


def checked(signature: Callable[..., Any]) -> Callable[..., Any]:
    """beartype's check of the empty function that jaxtyping makes of a signature.

    A function within a function is decorated whenever the outer one is called, and beartype takes
    milliseconds: that of the same function with the same signature is made once.
    """
    if "<locals>" not in signature.__qualname__:
        return beartype(signature)
    key = signature.__module__, signature.__qualname__, str(inspect.signature(signature))
    if key not in _CHECKS:
        _CHECKS[key] = beartype(signature)
    return _CHECKS[key]
