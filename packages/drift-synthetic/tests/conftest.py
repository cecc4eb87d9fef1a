from collections.abc import Iterator
from pathlib import Path

import pooch
import pytest
import torch
from torch import Generator


@pytest.fixture(autouse=True)
def single_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each test has a cache of its own, which is not the user's."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr(pooch, "os_cache", lambda project: folder / project)
    return folder / "drift" / "synthetic"


@pytest.fixture
def generator() -> Generator:
    return Generator().manual_seed(0)


@pytest.fixture(params=["plane", "sphere", "hyperboloid"])
def space(request: pytest.FixtureRequest):
    from drift_synthetic import SPACES

    return SPACES[request.param]
