"""The cache of floors: same values from it as without it, whatever happens to its files."""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from drift_core.runs.floors import cached_floors

KEY = {"data": torch.arange(6.0).reshape(2, 3), "metrics": "mmd", "version": 1, "scale": 0.1}
FLOORS = [{"mmd": 0.1 + k / 3, "novel": math.nan, "far": math.inf, "none": 1e-320} for k in range(3)]


@pytest.fixture
def counted() -> tuple[Callable[[int], dict[str, float]], list[int]]:
    """A function of floors, and the list of draws for which it was called."""
    calls: list[int] = []

    def floor(k: int) -> dict[str, float]:
        calls.append(k)
        return FLOORS[k]

    return floor, calls


def same(floors):
    return repr(floors) == repr(FLOORS)  # to the last digit, NaN included


def test_floors_are_computed_once_and_are_the_same_from_the_cache(tmp_path, counted):
    floor, calls = counted
    assert all(same(cached_floors(tmp_path / "new", KEY, floor, 3)) for _ in range(3))
    assert calls == [0, 1, 2]


def test_numbers_of_other_types_become_floats(tmp_path):
    for _ in range(2):
        (floors,) = cached_floors(tmp_path, KEY, lambda _: {"mmd": torch.tensor(0.5, dtype=torch.float64)}, 1)
        assert floors == {"mmd": 0.5}
        assert type(floors["mmd"]) is float


def test_everything_in_the_key_counts_and_its_order_does_not(tmp_path, counted):
    floor, calls = counted
    changes = [
        {},
        {"data": KEY["data"] + 1e-6},
        {"data": KEY["data"].double()},
        {"data": KEY["data"].reshape(3, 2)},
        {"metrics": "sinkhorn"},
        {"version": 2},
        {"scale": 0.2},
        {"more": 0},
    ]
    for change in changes:
        cached_floors(tmp_path, KEY | change, floor, 1)
    cached_floors(tmp_path, KEY, floor, 2)
    assert calls == [0] * len(changes) + [0, 1]
    assert len(list(tmp_path.iterdir())) == len(changes) + 1
    cached_floors(tmp_path, dict(reversed(KEY.items())), floor, 1)
    cached_floors(tmp_path, KEY | {"data": KEY["data"].T.contiguous().T}, floor, 1)
    assert len(calls) == len(changes) + 2


def test_a_damaged_file_is_ignored_and_written_anew(tmp_path, counted):
    floor, _ = counted
    cached_floors(tmp_path, KEY, floor, 3)
    (path,) = tmp_path.iterdir()
    good = path.read_bytes()
    damages = [b"", b"nonsense", b"[]", b"null", b'{"floors": []}', good[:-1], good[: len(good) // 2]]
    damages += [good[:i] + bytes([good[i] ^ 1]) + good[i + 1 :] for i in range(len(good))]
    for damage in damages:
        path.write_bytes(damage)
        assert same(cached_floors(tmp_path, KEY, floor, 3))
    path.write_bytes(b"nonsense")
    cached_floors(tmp_path, KEY, floor, 3)
    assert path.read_bytes() == good


@pytest.mark.parametrize("occupied", ["floors", "."])
def test_a_cache_that_cannot_be_written_costs_time_only(tmp_path, counted, occupied):
    floor, calls = counted
    folder = tmp_path / "folder" / occupied
    (tmp_path / "folder").write_text("a file where the folder should be")
    assert all(same(cached_floors(folder, KEY, floor, 3)) for _ in range(2))
    assert calls == [0, 1, 2] * 2


def test_a_failure_leaves_no_file(tmp_path):
    def fail(k: int) -> dict[str, float]:
        raise FloatingPointError

    with pytest.raises(FloatingPointError):
        cached_floors(tmp_path, KEY, fail, 3)
    assert list(tmp_path.iterdir()) == []


def test_many_at_once_do_each_other_no_harm(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        results = [pool.submit(cached_floors, tmp_path, KEY, lambda k: FLOORS[k], 3) for _ in range(64)]
    assert all(same(result.result()) for result in results)
    assert [path.suffix for path in tmp_path.iterdir()] == [".json"]


def test_fewer_than_one_draw_is_refused(tmp_path, counted):
    with pytest.raises(ValueError, match="`draws` must be at least 1, got 0"):
        cached_floors(tmp_path, KEY, counted[0], 0)
    assert list(tmp_path.iterdir()) == []
