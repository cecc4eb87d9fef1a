"""Annotations are checked in all functions, though calls of the same kind are not checked again."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from jaxtyping import TypeCheckError
from shape_checks import ENOUGH, check_shapes

SOURCE = """
from dataclasses import dataclass
from typing import Literal
from jaxtyping import Float
from torch import Tensor, zeros

calls = []

def add(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"], rows: int) -> Float[Tensor, "n {rows} d"]:
    calls.append(rows)
    return (x[:, None] + y)[..., : 3 if rows == 4 else rows, :]

def scale(x: Float[Tensor, "n"], name: Literal["a", "b"] = "a", wrong: float = 0.0) -> Float[Tensor, "n"]:
    return zeros(len(x) + int(wrong))

def plain(x: Tensor, rows: int) -> int:
    return x

def outer(x: Float[Tensor, "n"], wrong: float) -> "list[Later]":
    def inner(y: Float[Tensor, "n d"], wrong: float) -> Float[Tensor, "d"]:
        return zeros(y.shape[1] + int(wrong))
    return [Later(inner(x[:, None], wrong), x)]

def count(n: int) -> Float[Tensor, "n"]:
    return zeros(1) if n == 0 else count(n - 1)

@dataclass
class Later:
    x: Float[Tensor, "d"]
    y: Float[Tensor, "n"]

    @property
    def both(self) -> Float[Tensor, "d n"]:
        return self.x[:, None] * self.y if len(self.y) < 9 else self.x

    @staticmethod
    def of(*parts: Float[Tensor, "d"], **more: Float[Tensor, "n"]) -> int:
        return len(parts) + len(more)
"""


@pytest.fixture
def module(tmp_path: Path) -> Iterator[ModuleType]:
    (tmp_path / "annotated_things.py").write_text(SOURCE)
    finders = list(sys.meta_path)
    sys.path.insert(0, str(tmp_path))
    check_shapes("annotated_things")
    yield importlib.import_module("annotated_things")
    sys.path.remove(str(tmp_path))
    sys.meta_path[:] = finders
    del sys.modules["annotated_things"]


def test_arguments_are_checked_together_before_the_call(module):
    for _ in range(2):
        module.add(torch.zeros(2, 3), torch.zeros(4, 3), 2)
        with pytest.raises(TypeCheckError):
            module.add(torch.zeros(2, 3), torch.zeros(4, 2), 2)
        with pytest.raises(TypeCheckError):
            module.add(torch.zeros(2, 3).int(), torch.zeros(4, 3), 2)
        with pytest.raises(TypeCheckError):
            module.add(torch.zeros(2, 3), torch.zeros(4, 3), rows="2")
        assert module.calls == [2] * len(module.calls)  # those that fail are not made
    with pytest.raises(TypeError, match="missing"):
        module.add(torch.zeros(2, 3))


def test_functions_without_shapes_are_left_to_mypy(module):
    assert module.plain(3, "4") == 3


def test_a_function_of_very_many_kinds_of_calls_is_checked_in_the_first_of_them(module):
    for n in range(ENOUGH - 1):
        module.scale(torch.zeros(n))
    with pytest.raises(TypeCheckError):
        module.scale(torch.zeros(ENOUGH), wrong=1.0)
    for n in range(ENOUGH, ENOUGH + 2):
        module.scale(torch.zeros(n))
    assert len(module.scale(torch.zeros(0), wrong=1.0)) == 1


def test_numbers_in_annotations_are_those_of_the_call(module):
    module.add(torch.zeros(2, 3), torch.zeros(4, 3), 3)
    with pytest.raises(TypeCheckError):
        module.add(torch.zeros(2, 3), torch.zeros(4, 3), 4)


def test_results_are_checked_also_after_arguments_that_have_passed(module):
    for _ in range(2):
        assert module.scale(torch.ones(3), wrong=0.0).shape == (3,)
        with pytest.raises(TypeCheckError):
            module.scale(torch.ones(3), wrong=1.0)
        with pytest.raises(TypeCheckError):
            module.scale(torch.ones(3), "c")
        assert module.scale(torch.ones(3), "b").shape == (3,)


def test_functions_within_functions_and_names_that_come_later(module):
    for _ in range(2):
        assert isinstance(module.outer(torch.ones(2), 0.0)[0], module.Later)
        with pytest.raises(TypeCheckError, match="inner"):
            module.outer(torch.ones(2), 2.0)


def test_functions_that_call_themselves(module):
    assert module.count(5).shape == (1,)
    assert module.count(6).shape == (1,)


def test_dataclasses_properties_and_static_methods(module):
    assert module.Later(torch.ones(2), torch.ones(3)).both.shape == (2, 3)
    with pytest.raises(TypeCheckError):
        module.Later(torch.ones(2), torch.ones(3, 1))
    with pytest.raises(TypeCheckError):
        _ = module.Later(torch.ones(2), torch.ones(9)).both
    assert module.Later.of(torch.ones(2), torch.ones(2), n=torch.ones(5)) == 3
    with pytest.raises(TypeCheckError):
        module.Later.of(torch.ones(2), torch.ones(3))
