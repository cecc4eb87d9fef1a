"""A network, or any function of rows, applied to a few rows at a time."""

import pytest
import torch
from drift_core.training.network import in_batches


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_batches_do_not_change_the_result(batch_size):
    a, b, device = torch.arange(7), torch.arange(14).view(7, 2), torch.device("cpu")
    found = in_batches(lambda i, j: i + j.sum(1), a, b, batch_size=batch_size, device=device)
    assert torch.equal(found, a + b.sum(1))
