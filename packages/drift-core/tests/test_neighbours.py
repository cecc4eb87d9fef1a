"""The engine's k-d tree finds the nearest of all float64 distances, ties by index."""

import math

import pytest
import torch
from drift_core import Batch, Euclidean, KernelField, Laplace, Sphere
from drift_core.engine import build, disabled, tree
from drift_core.field import observe
from drift_core.fields.nearest import NearestField, NearestPoints
from drift_core.lengthscale import parse_lengthscales
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor


@pytest.fixture(autouse=True)
def _engine() -> None:
    if build.compiled() is None:
        pytest.skip("there is no C compiler")


def squares(x: Tensor, y: Tensor) -> Tensor:
    return (x.double()[:, None] - y.double()).square().sum(2)


def noise(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def nearest(x: Tensor, y: Tensor, k: int) -> Tensor:
    built = tree(y)
    assert built is not None
    index = built.nearest(x, k)
    assert index.shape == (len(x), k)
    return index


def check(x: Tensor, y: Tensor, k: int) -> None:
    """Compare with all distances: a different point may only be as near, to float64 rounding."""
    index, all_squares = nearest(x, y, k), squares(x, y)
    assert all(len(set(row)) == k for row in index.tolist())
    expected = all_squares.sort(dim=1, stable=True).values[:, :k]
    torch.testing.assert_close(all_squares.gather(1, index), expected, rtol=1e-14, atol=0)


def check_exact(x: Tensor, y: Tensor, k: int) -> None:
    """The same where squared distances have no rounding errors, ties included."""
    assert torch.equal(nearest(x, y, k), squares(x, y).sort(dim=1, stable=True).indices[:, :k])


@given(
    n=st.integers(0, 20),
    m=st.integers(1, 3000),
    d=st.integers(1, 8),
    share=st.floats(0, 1),
    spread=st.floats(-6, 0),
    offset=st.sampled_from([0.0, 1.0, 1e4, 1e18]),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=150, deadline=None)
def test_any_cloud_of_clusters(n, m, d, share, spread, offset, seed):
    """Far from the origin most points coincide."""
    centres = noise(5, d, seed)
    part = torch.randint(5, (n + m,), generator=torch.Generator().manual_seed(seed))
    points = offset + centres[part] + 10**spread * noise(n + m, d, seed + 1)
    check(points[:n], points[n:], max(1, round(share * m)))


@given(
    m=st.integers(1, 2000),
    d=st.integers(1, 8),
    side=st.integers(1, 6),
    share=st.floats(0, 1),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=100, deadline=None)
def test_ties_are_resolved_by_index(m, d, side, share, seed):
    """On a small grid there are many, and many duplicates."""
    points = torch.randint(side, (m + 9, d), generator=torch.Generator().manual_seed(seed)).float()
    check_exact(points[:9], points[9:], max(1, round(share * m)))


@pytest.mark.parametrize("k", [1, 64, 65, 128, 1000, 5000])
def test_points_that_are_all_equal_are_found_in_their_order(k):
    check_exact(noise(3, 3, 0), noise(1, 3, 1).expand(5000, 3), k)


@pytest.mark.parametrize("m", [1, 63, 64, 65, 1024, 1025, 16_384, 16_385, 20_000])
def test_every_size_of_tree(m):
    x, y = noise(8, 3, 0), noise(m, 3, 1)
    for k in {1, min(m, 128), m}:
        check(x, y, k)


def test_a_tree_of_many_levels():
    x, y = noise(20, 2, 0), noise(300_000, 2, 1)
    for k in (1, 200):
        check(x, y, k)


def test_a_geometric_sequence_of_distances():
    """Over 70 orders of magnitude, so that the k nearest share a bucket whatever its width."""
    y = torch.logspace(-37, 37, 4000, dtype=torch.float64)[torch.randperm(4000)].float()[:, None]
    y = torch.cat([y, -y, y])
    check(torch.tensor([[0.0], [1e-30], [1.0], [1e38]]), y, 700)
    check(torch.zeros(1, 1), y, len(y))


def test_the_order_is_that_of_float64_where_float32_distances_coincide():
    y = 1 + torch.arange(1000).flip(0)[:, None] * 2**-23
    check_exact(torch.tensor([[-1e4], [1e4]]), y, 300)


@pytest.mark.parametrize("d", [1, 2, 3, 4, 8])
def test_a_query_depends_neither_on_the_threads_nor_on_the_others(d):
    x, y = noise(333, d, 0), noise(20_000, d, 1)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = nearest(x, y, 50)
        for count in (2, 7):
            torch.set_num_threads(count)
            assert torch.equal(nearest(x, y, 50), alone)
            assert torch.equal(nearest(x[100:101], y, 50), alone[100:101])
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_points_that_are_not_finite_follow_all_others_in_their_order(bad):
    x, y = noise(20, 3, 0), noise(500, 3, 1)
    lost = torch.arange(3, 500, 7)
    y[lost, lost % 3] = bad
    kept = torch.tensor([i for i in range(500) if i not in set(lost.tolist())])
    index = nearest(x, y, 500)
    assert torch.equal(index[:, : len(kept)], kept[nearest(x, y[kept], len(kept))])
    assert torch.equal(index[:, len(kept) :], lost.expand(20, -1))
    assert torch.equal(nearest(x, torch.full((70, 3), bad), 70), torch.arange(70).expand(20, -1))
    x[4, 1] = bad
    assert torch.equal(nearest(x, y, 90)[4], torch.arange(90))
    assert torch.equal(nearest(x, y, 90)[5], index[5, :90])


def test_the_largest_numbers_do_not_overflow():
    most = torch.finfo(torch.float32).max
    y = most * torch.tensor([[1.0, 1.0], [-1.0, -1.0], [0.0, 0.0], [1.0, -1.0]])
    assert nearest(y[:1], y, 4).tolist() == [[0, 2, 3, 1]]


def test_views_and_no_queries():
    x, y = noise(40, 6, 0), noise(700, 6, 1)
    assert torch.equal(
        nearest(x[::2, ::2], y[::2, ::2], 9), nearest(x[::2, ::2].clone(), y[::2, ::2].clone(), 9)
    )
    assert nearest(x[:0], y, 5).shape == (0, 5)


def test_what_has_no_tree():
    y = noise(10, 3, 0)
    assert tree(y) is not None
    assert tree(y.double()) is None
    assert tree(noise(10, 9, 0)) is None
    assert tree(y[:, :0]) is None
    with disabled():
        assert tree(y) is None


@pytest.mark.parametrize("manifold", [Euclidean(), Sphere()], ids=repr)
@pytest.mark.parametrize("d", [2, 3, 8])
def test_the_points_are_those_of_the_other_tree(manifold, d):
    x, y = manifold.projx(noise(100, d, 0)), manifold.projx(noise(3000, d, 1))
    index = NearestPoints(manifold, y)(x, 40)
    with disabled():
        expected = NearestPoints(manifold, y)(x, 40)
    torch.testing.assert_close(squares(x, y).gather(1, index), squares(x, y).gather(1, expected))
    assert float((index != expected).double().mean()) < 1e-3


@pytest.mark.parametrize("manifold", [Euclidean(), Sphere()], ids=repr)
def test_the_field_of_the_nearest_is_that_without_the_engine(manifold):
    data, x, samples = (manifold.projx(noise(n, 3, seed)) for n, seed in ((2000, 0), (100, 1), (1000, 2)))
    plain = KernelField(manifold, Laplace, parse_lengthscales("0.02"), "gradient")

    def drift() -> Tensor:
        field = NearestField(plain, data, buffer_size=1000, neighbors=128, tolerance=0.9)
        observe(field, Batch(x, data[:100], samples, None, progress=1.0))
        assert field.resolves(1.0)
        return field(Batch(x, data[:100], x, None, progress=1.0)).field

    fast = drift()
    with disabled():
        slow = drift()
    assert float((fast - slow).norm() / slow.norm()) < 2e-5
