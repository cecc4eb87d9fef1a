from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from drift_qm9 import cache
from drift_qm9.cache import Tokenised, stored

IDS = np.arange(96, dtype=np.uint8).reshape(3, 32)


@pytest.fixture
def counted():
    """A maker of tokens, and the list of its calls."""
    calls = []

    def make():
        calls.append(1)
        return Tokenised(IDS.copy(), 7)

    return make, calls


def the_file(folder):
    (path,) = folder.iterdir()
    return path


def is_right(tokenised):
    return np.array_equal(tokenised.ids, IDS) and tokenised.ids.dtype == np.uint8 and tokenised.skipped == 7


def test_tokens_are_made_once(empty_cache, counted):
    make, calls = counted
    assert all(is_right(stored(b"data", {"length": 32}, make)) for _ in range(3))
    assert len(calls) == 1


def test_all_that_determines_the_tokens_is_in_the_name(empty_cache, counted, monkeypatch):
    make, calls = counted
    stored(b"data", {"length": 32}, make)
    stored(b"date", {"length": 32}, make)
    stored(b"data", {"length": 16}, make)
    monkeypatch.setattr(cache.rdkit, "__version__", "1.0")
    stored(b"data", {"length": 32}, make)
    monkeypatch.setattr(cache, "VERSION", cache.VERSION + 1)
    stored(b"data", {"length": 32}, make)
    assert len(calls) == len(list(empty_cache.iterdir())) == 5


def test_the_same_input_gives_the_same_bytes(empty_cache, counted):
    make, _ = counted
    contents = []
    for _ in range(2):
        stored(b"data", {}, make)
        contents.append(the_file(empty_cache).read_bytes())
        the_file(empty_cache).unlink()
    assert contents[0] == contents[1]


def test_a_damaged_file_is_made_again(empty_cache, counted):
    make, calls = counted
    stored(b"data", {}, make)
    path = the_file(empty_cache)
    good = path.read_bytes()
    damages = [b"", b"nonsense", good[:-1], good[: len(good) // 2]]
    damages += [good[:i] + bytes([good[i] ^ 0xFF]) + good[i + 1 :] for i in range(0, len(good), 7)]
    for damage in damages:
        path.write_bytes(damage)
        assert is_right(stored(b"data", {}, make))
    # What zip repeats or ignores may be damaged unnoticed; the tokens may not.
    assert len(calls) > len(damages) / 2
    path.write_bytes(b"nonsense")
    stored(b"data", {}, make)
    assert path.read_bytes() == good


def test_no_half_written_file_stays(empty_cache, counted, monkeypatch):
    def fail(file, **arrays):
        file.write(b"half")
        raise RuntimeError

    monkeypatch.setattr(np, "savez_compressed", fail)
    with pytest.raises(RuntimeError):
        stored(b"data", {}, counted[0])
    assert list(empty_cache.iterdir()) == []


def test_a_cache_that_cannot_be_written_costs_time_only(empty_cache, counted):
    make, calls = counted
    empty_cache.parent.mkdir()
    empty_cache.write_text("a file where the folder should be")
    assert all(is_right(stored(b"data", {}, make)) for _ in range(2))
    assert len(calls) == 2


def test_many_at_once_do_each_other_no_harm(empty_cache, counted):
    with ThreadPoolExecutor(8) as pool:
        results = [pool.submit(stored, b"data", {}, counted[0]) for _ in range(64)]
    assert all(is_right(result.result()) for result in results)
    assert the_file(empty_cache).suffix == ".npz"
