"""Shape annotations that the tests check, by jaxtyping and beartype: once for each kind of arguments.

jaxtyping's own import hook checks every call, which takes longer than most of what the tests call. Here a
call is not checked again if one has passed whose arguments and result were of the same types, shapes and
dtypes, and where they are integers or strings of the same values; nor after calls of a thousand kinds, as
of a function that is called for every line of a file.
"""

import ast
import functools
import sys
from collections.abc import Callable, Hashable
from contextvars import ContextVar
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, FunctionType
from typing import Any, TypeVar

import numpy as np
from beartype import beartype
from jaxtyping import jaxtyped
from torch import Tensor

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

ENOUGH = 1_000
"""Kinds of calls of a function after which it is not checked any more."""

_VALUES = frozenset({bool, int, str})
_PLAIN = frozenset({"bool", "int", "float", "str", "bytes", "object", "Any", "Self", "Tensor", "Path"})
"""Names in annotations of which there is nothing to check but what mypy does."""

_called: ContextVar[Callable[..., Any]] = ContextVar("_called")
"""The function whose call is checked."""
_checks: dict[Hashable, "_Check"] = {}
"""Checks of functions within functions, which are decorated whenever the outer one is called."""


def check_shapes(*packages: str) -> None:
    """Check dataclasses, and functions whose annotations have shapes, of packages imported after this."""
    sys.meta_path.insert(0, _Finder(packages))


def checked(function: Decorated) -> Decorated:
    """A function, or a dataclass, whose annotations are checked in calls of new kinds."""
    if isinstance(function, type):
        return jaxtyped(function, typechecker=beartype)
    check = _check_of(function)
    passed = check.passed

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if len(passed) >= ENOUGH:
            return function(*args, **kwargs)
        arguments = tuple(map(_kind, args)), _kind(kwargs) if kwargs else ()
        results = passed.get(arguments)
        if results is None:
            result = check(function, args, kwargs)
            passed[arguments] = {_kind(result)}
            return result
        result = function(*args, **kwargs)
        kind = _kind(result)
        if kind not in results:
            check(lambda *_, **__: result, args, kwargs)
            results.add(kind)
        return result

    return call


class _Check:
    """Calls any function as if it had the annotations of `function`."""

    def __init__(self, function: FunctionType) -> None:
        self.passed: dict[Hashable, set[Hashable]] = {}
        """Kinds of results that have passed, by the kind of the arguments."""
        self.function = function

    @functools.cached_property
    def checked(self) -> Callable[..., Any]:
        """Calls the function of `_called`."""
        called = _called

        def call(*args: Any, **kwargs: Any) -> Any:
            return called.get()(*args, **kwargs)

        # In the module of the function, whose names its annotations may be written with.
        there = FunctionType(call.__code__, self.function.__globals__, closure=call.__closure__)
        return jaxtyped(functools.wraps(self.function)(there), typechecker=beartype)

    def __call__(self, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        before = _called.set(function)
        try:
            return self.checked(*args, **kwargs)
        finally:
            _called.reset(before)


def _check_of(function: FunctionType) -> _Check:
    if "<locals>" not in function.__qualname__:
        return _Check(function)
    key = function.__code__, str(function.__annotations__)
    if key not in _checks:
        _checks[key] = _Check(function)
    return _checks[key]


def _kind(value: Any) -> Hashable:
    """What annotations may tell apart: type, shape and dtype; of small values the value, too."""
    kind = type(value)
    if kind in _VALUES:
        return kind, value
    if isinstance(value, Tensor):
        return kind, value.shape, value.dtype
    if isinstance(value, tuple | list):
        return kind, tuple(map(_kind, value))
    if isinstance(value, dict):
        return kind, tuple((key, _kind(one)) for key, one in value.items())
    if isinstance(value, np.ndarray):
        return kind, value.shape, value.dtype
    return (kind, value) if isinstance(value, int | str | type) else kind


def _has_shapes(function: ast.FunctionDef) -> bool:
    """Whether annotations may name shapes, themselves or through another name."""
    arguments = ast.walk(function.args)
    hints = [argument.annotation for argument in arguments if isinstance(argument, ast.arg)]
    parts = [part for hint in (*hints, function.returns) if hint is not None for part in ast.walk(hint)]
    names = {part.id for part in parts if isinstance(part, ast.Name)}
    quoted = any(isinstance(part, ast.Constant) and isinstance(part.value, str) for part in parts)
    return quoted or not names <= _PLAIN or any(isinstance(part, ast.Attribute) for part in parts)


class _Finder(MetaPathFinder):
    """Finds the modules of packages, to be loaded with their functions decorated."""

    def __init__(self, packages: tuple[str, ...]) -> None:
        self.packages = packages

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name.partition(".")[0] not in self.packages:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


class _Loader(SourceFileLoader):
    """Compiles a module with `checked` as the innermost decorator of functions, the outermost of classes."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        tree = ast.parse(self.get_data(path), path)
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) or (isinstance(node, ast.FunctionDef) and _has_shapes(node)):
                decorator = ast.parse(f"__import__({__name__!r}).checked", mode="eval").body
                for part in ast.walk(decorator):
                    ast.copy_location(part, node)
                innermost = isinstance(node, ast.FunctionDef)
                node.decorator_list.insert(len(node.decorator_list) if innermost else 0, decorator)
        return compile(tree, path, "exec", dont_inherit=True)
