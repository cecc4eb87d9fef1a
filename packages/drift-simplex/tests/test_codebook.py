"""The codebook: its scale, its draws, and the sizes that it refuses."""

import pytest
import torch
from drift_simplex import Codebook


def test_untrained_entries_have_mean_square_one_and_move_further_than_their_weights():
    torch.manual_seed(0)
    book = Codebook(2000, 16)
    indices = torch.arange(2000.0)
    assert float(book(indices).detach().square().mean()) == pytest.approx(1, abs=0.05)
    with torch.no_grad():
        before = book(indices)
        book.vectors.weight += 0.1
        torch.testing.assert_close(book(indices) - before, torch.full((2000, 16), 0.5))


@pytest.mark.parametrize("size", [0, -1, 2**24 + 1])
def test_sizes_that_are_out_of_range_are_refused(size):
    with pytest.raises(ValueError, match=rf"codebook size must lie in 1\.\.16777216, got {size}"):
        Codebook(size, 4)
