import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pooch
import pytest
import torch
from torch import Generator, Tensor


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
    return folder / "drift" / "sphere"


@pytest.fixture
def earth_dir() -> Path:
    folder = os.environ.get("DRIFT_DATA_DIR")
    if not folder:
        pytest.skip("DRIFT_DATA_DIR names no data folder")
    return Path(folder)


@pytest.fixture
def uniform() -> Callable[[int, Generator], Tensor]:
    return lambda n, generator: torch.nn.functional.normalize(torch.randn(n, 3, generator=generator), dim=-1)


@pytest.fixture
def generator() -> Generator:
    return Generator().manual_seed(0)
