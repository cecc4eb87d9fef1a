"""Lengthscales from the spread of distances, in few dimensions and in many."""

from functools import partial

import pytest
import torch
from drift_core import Gaussian, Laplace
from drift_core.kernel.by_name import make_kernel
from drift_simplex import (
    onehot_cdist,
    onehot_effective_sample_size,
    onehot_lengthscale,
    onehot_to_sphere,
    spread_lengthscale,
    to_sphere,
)

LENGTHS = [8, 32, 256, 1024]
FAMILIES = {"laplace": Laplace, "gaussian": Gaussian, "matern": partial(make_kernel, "matern", nu=2.5)}


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("product", [False, True])
def test_neither_one_reference_nor_all_carry_the_score(length, family, product, soft, strings):
    x, tokens = soft(32, length, 4).float(), strings(1000, length, 4)
    scale = spread_lengthscale(FAMILIES[family], x, tokens, product=product)
    kernel = FAMILIES[family](scale)
    sizes = onehot_effective_sample_size(kernel, x, tokens, product=product)
    assert 0.2 < float(sizes.mean()) / 1000 < 0.6  # 1/e for normal log-weights
    assert float(sizes.min()) > 20


def test_for_laplace_it_is_the_standard_deviation_within_rows(soft, strings):
    x, tokens = soft(50, 20, 4), strings(300, 20, 4)
    r = onehot_cdist(x, tokens)
    by_hand = float(r.var(dim=1, correction=0).mean().sqrt())
    assert spread_lengthscale(Laplace, x, tokens) == pytest.approx(by_hand, rel=1e-4)


def test_it_does_not_grow_with_the_length_where_distances_do(soft, strings):
    sizes, spreads = [], []
    for length in LENGTHS:
        x, tokens = soft(32, length, 4).float(), strings(1000, length, 4)
        sizes.append(float(onehot_cdist(x, tokens).median()))
        spreads.append(spread_lengthscale(Laplace, x, tokens))
    assert sizes[-1] > 10 * sizes[0]
    assert max(spreads) < 1.5 * min(spreads)
    # A lengthscale of the size of the distances, by contrast, weighs all references alike.
    blind = onehot_effective_sample_size(Laplace(sizes[-1]), x, tokens)
    assert float(blind.min()) > 999


def test_data_among_themselves_do_not_count_their_own_distance(strings):
    tokens = strings(400, 64, 4)
    x = onehot_to_sphere(tokens[:100], 4)
    r = onehot_cdist(x, tokens)
    apart = r[r > 0].reshape(100, 399)
    by_hand = float(apart.var(dim=1, correction=0).mean().sqrt())
    assert spread_lengthscale(Laplace, x, tokens) == pytest.approx(by_hand, rel=1e-3)
    assert by_hand < 0.8 * float(r.var(dim=1, correction=0).mean().sqrt())


def test_large_sets_are_thinned_evenly(soft, strings):
    x, tokens = soft(300, 6, 4).float(), strings(30_000, 6, 4).sort(dim=0).values
    thinned = spread_lengthscale(Laplace, x[::2], tokens[:: 30_000 // 2_000])
    assert spread_lengthscale(Laplace, x, tokens) == pytest.approx(thinned, rel=0.05)


def test_from_the_middle_of_the_orthant_all_strings_look_alike(strings):
    tokens = strings(1000, 32, 4)
    noise = 0.1 * torch.randn(50, 32, 4, generator=torch.Generator().manual_seed(0))
    middle, data = to_sphere(noise.softmax(-1)), onehot_to_sphere(tokens[:50], 4)
    assert spread_lengthscale(Laplace, middle, tokens) < 0.1 * spread_lengthscale(Laplace, data, tokens)


@pytest.mark.parametrize("rows", [1, 5])
def test_data_at_one_distance_have_no_spread(rows, soft, strings):
    with pytest.raises(ValueError, match="data at different distances"):
        spread_lengthscale(Laplace, soft(10, 6, 4), strings(1, 6, 4).expand(rows, 6))


@pytest.mark.parametrize(("geometry", "apart"), [("spherical", torch.pi / 2), ("euclidean", 2**0.5)])
def test_of_strings_it_is_their_own_spread_in_either_geometry(geometry, apart, strings):
    tokens = strings(400, 20, 4)
    r = apart * (tokens[:256, None] != tokens).sum(-1).double().sqrt()
    others = r > 0
    means = (r * others).sum(1, keepdim=True) / others.sum(1, keepdim=True)
    by_hand = float(((r - means).square() * others).sum().div(others.sum()).sqrt())
    assert onehot_lengthscale(Laplace, tokens, 4, geometry) == pytest.approx(by_hand, rel=1e-3)
