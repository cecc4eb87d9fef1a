"""Clouds of sequences, soft and one-hot; and shape annotations that are checked."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

Cloud = Callable[..., Tensor]


@pytest.fixture(autouse=True)
def single_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def soft() -> Cloud:
    """Sampler of n points inside the orthant, L positions by vocabulary size K, from a seed."""

    def draw(
        n: int, length: int, vocab_size: int, seed: int = 0, dtype: torch.dtype = torch.float64
    ) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        logits = 2 * torch.randn(n, length, vocab_size, generator=generator, dtype=torch.float64)
        return logits.softmax(dim=-1).sqrt().to(dtype)

    return draw


@pytest.fixture
def strings() -> Cloud:
    """Sampler of m sequences of tokens, L positions over a vocabulary of K, from a seed."""

    def draw(m: int, length: int, vocab_size: int, seed: int = 1) -> Tensor:
        return torch.randint(vocab_size, (m, length), generator=torch.Generator().manual_seed(seed))

    return draw
