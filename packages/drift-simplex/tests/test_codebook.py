"""The codebook: its scale, its draws, and the sizes that it refuses."""

import pytest
import torch
from drift_simplex import Codebook


def test_untrained_codes_have_mean_square_one_and_move_further_than_their_weights():
    torch.manual_seed(0)
    book = Codebook(2000, 16)
    numbers = torch.arange(2000.0)
    assert float(book(numbers).detach().square().mean()) == pytest.approx(1, abs=0.05)
    with torch.no_grad():
        before = book(numbers)
        book.vectors.weight += 0.1
        torch.testing.assert_close(book(numbers) - before, torch.full((2000, 16), 0.5))


@pytest.mark.parametrize("size", [0, -1, 2**24 + 1])
def test_what_is_no_number_of_codes_is_refused(size):
    with pytest.raises(ValueError, match=rf"codes must lie in 1\.\.16777216, got {size}"):
        Codebook(size, 4)
