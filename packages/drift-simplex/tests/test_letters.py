"""Sums over one-hot references: by lookups and by matrix products, against einsum in float64."""

import pytest
import torch
from drift_simplex.letters import Letters
from torch import Generator
from torch.nn.functional import one_hot


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize(("m", "length", "vocab_size", "n"), [(50, 8, 35, 7), (1, 1, 2, 1), (30, 70, 4, 5)])
def test_both_ways_are_sums_over_references(dtype, dense, m, length, vocab_size, n):
    generator = Generator().manual_seed(0)
    tokens = torch.randint(vocab_size, (m, length), generator=generator)
    table = torch.rand(length * vocab_size, n, generator=generator, dtype=torch.float64)
    weight = torch.rand(m, n, generator=generator, dtype=torch.float64)
    member = one_hot(tokens, vocab_size).double()
    letters = Letters(tokens, vocab_size, dense)
    tolerance = {"rtol": 1e-6, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 1e-13, "atol": 1e-13}
    looked_up = torch.einsum("mlk,lkn->mn", member, table.view(length, vocab_size, n))
    torch.testing.assert_close(letters.lookup(table.to(dtype)).double(), looked_up, **tolerance)
    total = torch.einsum("mn,mlk->nlk", weight, member)
    torch.testing.assert_close(letters.total(weight.to(dtype)).double(), total, **tolerance)


def test_products_are_right_if_the_device_rounds_to_eleven_bits(monkeypatch):
    """With operands rounded as by TF32 sums stay within 1e-6, where one product is 1e-4 off."""
    product = torch.Tensor.__matmul__

    def rounded(x: torch.Tensor) -> torch.Tensor:
        return ((x.view(torch.int32) + 0x0FFF + ((x.view(torch.int32) >> 13) & 1)) & -(2**13)).view(
            torch.float32
        )

    tokens = torch.randint(9, (40, 12), generator=Generator().manual_seed(0))
    table = torch.rand(12 * 9, 6, generator=Generator().manual_seed(1)) + 1
    exact = Letters(tokens, 9, dense=False).lookup(table.double())
    monkeypatch.setattr(torch.Tensor, "__matmul__", lambda a, b: product(rounded(a), rounded(b)))
    found = Letters(tokens, 9, dense=True).lookup(table)
    assert float(((found - exact) / exact).abs().max()) < 1e-6
    onehot = one_hot(tokens, 9).float().flatten(1)
    assert float(((onehot @ table - exact) / exact).abs().max()) > 5e-5
