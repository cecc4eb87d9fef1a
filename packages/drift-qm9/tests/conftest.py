import os
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


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The tests share one cache, which is not the user's."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pooch, "os_cache", lambda project: folder / project)
        yield


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / project)
    return tmp_path / "drift" / "qm9"


@pytest.fixture(scope="session")
def qm9_dir() -> Path:
    folder = os.environ.get("DRIFT_DATA_DIR")
    if not folder:
        pytest.skip("DRIFT_DATA_DIR names no data folder")
    return Path(folder)


@pytest.fixture(scope="session")
def toy(own_cache):
    from drift_qm9 import load

    return load("toy")


@pytest.fixture(scope="session")
def toy_smiles(toy) -> list[str]:
    """All toy molecules, in an order without meaning."""
    from drift_qm9 import to_smiles

    return to_smiles(torch.cat([toy.train, toy.val, toy.test]))


@pytest.fixture
def generator() -> Generator:
    return Generator().manual_seed(0)
