from collections.abc import Iterator

import pytest
import torch
from jaxtyping import install_import_hook
from torch import Generator

install_import_hook("drift_synthetic", "beartype.beartype")


@pytest.fixture(autouse=True)
def single_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def generator() -> Generator:
    return Generator().manual_seed(0)


@pytest.fixture(params=["plane", "sphere", "hyperboloid"])
def space(request: pytest.FixtureRequest):
    from drift_synthetic import SPACES

    return SPACES[request.param]
