"""Scores against k-mer counts: equal to those against all the k-mers themselves, and in float32 alike."""

import itertools

import pytest
import torch
from drift_core import Gaussian, Laplace, Matern
from drift_simplex import kmer_effective_sample_size, kmer_scores, onehot_effective_sample_size, onehot_scores
from torch import Generator, Tensor
from torch.nn.functional import normalize


@pytest.fixture
def generator() -> Generator:
    return Generator().manual_seed(0)


KERNELS = (Laplace(0.6), Gaussian(0.9), Matern(0.5, 1.5))


def queries(n: int, w: int, vocab_size: int, generator: Generator) -> Tensor:
    """Points of the orthant, some of them near its vertices."""
    x = torch.rand(n, w, vocab_size, generator=generator, dtype=torch.float64) ** 4
    return normalize(x + 1e-6, dim=-1)


def all_kmers(w: int, vocab_size: int) -> Tensor:
    """Every k-mer, in the order of indices whose first digit is the most significant."""
    return torch.tensor(list(itertools.product(range(vocab_size), repeat=w)))


@pytest.mark.parametrize("direction", ["gradient", "displacement"])
@pytest.mark.parametrize(("w", "vocab_size"), [(1, 5), (2, 3), (3, 4), (5, 3), (6, 2)])
def test_tables_are_all_kmers_with_the_logarithms_of_their_counts(w, vocab_size, direction, generator):
    x, kmers = queries(7, w, vocab_size, generator), all_kmers(w, vocab_size)
    counts = torch.randint(4, (len(kmers),), generator=generator)  # some are 0
    found = kmer_scores(KERNELS, x, counts, direction=direction)
    log = counts.double().log()
    expected = onehot_scores(KERNELS, x, kmers, log_weight=log, direction=direction, product=True)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.log_density, other.log_density, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(one.gradient, other.gradient, rtol=1e-9, atol=1e-10)
    for kernel in KERNELS:
        size = kmer_effective_sample_size(kernel, x, counts)
        each = kmers.repeat_interleave(counts, dim=0)
        torch.testing.assert_close(size, onehot_effective_sample_size(kernel, x, each, product=True))


def test_scores_are_gradients_of_log_densities(generator):
    x, counts = queries(5, 3, 4, generator), torch.rand(64, generator=generator, dtype=torch.float64)
    kmers = torch.nn.functional.one_hot(all_kmers(3, 4), 4).double()
    leaf = x.clone().requires_grad_()
    angles = 2 * torch.atan2((leaf[:, None] - kmers).norm(dim=-1), (leaf[:, None] + kmers).norm(dim=-1))
    density = (counts * (-angles.sum(-1) / 0.6).exp()).sum(1).log()
    (slope,) = torch.autograd.grad(density.sum(), leaf)
    (score,) = kmer_scores(KERNELS[:1], x, counts)
    torch.testing.assert_close(score.log_density, density.detach())
    torch.testing.assert_close(score.gradient, slope - (slope * x).sum(-1, keepdim=True) * x)


def test_how_many_queries_are_summed_at_once_does_not_matter(generator, monkeypatch):
    x, counts = queries(9, 4, 3, generator), torch.randint(5, (81,), generator=generator).int()
    (whole,) = kmer_scores(KERNELS[:1], x, counts)
    monkeypatch.setattr("drift_simplex.kmers._ENTRIES", 20)  # blocks of two queries
    (found,) = kmer_scores(KERNELS[:1], x, counts)
    torch.testing.assert_close(found, whole)


@pytest.mark.parametrize("direction", ["gradient", "displacement"])
def test_kmers_of_its_own_do_not_attract_a_query(direction, generator):
    x, kmers = queries(5, 3, 4, generator), all_kmers(3, 4)
    own = torch.randint(4, (5, 2, 3), generator=generator)
    own[0, 1] = own[0, 0]  # twice the same
    counts = torch.randint(2, (64,), generator=generator)
    indices = (own * torch.tensor([16, 4, 1])).sum(-1)
    counts += indices.flatten().bincount(minlength=64)
    found = kmer_scores(KERNELS, x, counts, own=own, direction=direction)
    for i in range(5):
        others = (counts - indices[i].bincount(minlength=64)).double().log()
        log = {"log_weight": others, "direction": direction, "product": True}
        for one, other in zip(found, onehot_scores(KERNELS, x[i : i + 1], kmers, **log), strict=True):
            torch.testing.assert_close(one.log_density[i], other.log_density[0], rtol=1e-10, atol=1e-10)
            torch.testing.assert_close(one.gradient[i], other.gradient[0], rtol=1e-9, atol=1e-10)


def test_a_query_that_is_alone_in_the_table_is_not_attracted(generator):
    """And a difference of sums that is rounding is not taken for other k-mers."""
    x, counts = queries(40, 3, 4, generator), torch.zeros(64)
    own = torch.tensor([[1, 2, 3], [3, 0, 2], [0, 0, 0]]).expand(40, 3, 3)
    counts[torch.tensor([27, 50, 0])] += 1
    (score,) = kmer_scores(KERNELS[:1], x, counts, own=own)
    assert torch.isneginf(score.log_density).all()
    assert not score.gradient.any()


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (torch.zeros(2, 3, dtype=torch.long), r"k-mers of the queries \[2, r, 3\], got \[2, 3\]"),
        (torch.zeros(2, 1, 4, dtype=torch.long), r"k-mers of the queries \[2, r, 3\], got \[2, 1, 4\]"),
        (torch.full((2, 1, 3), 4), "tokens must lie in 0..3, got 4"),
    ],
)
def test_kmers_of_its_own_that_do_not_fit_are_refused(own, message):
    with pytest.raises(ValueError, match=message):
        kmer_scores(KERNELS, torch.full((2, 3, 4), 0.5), torch.ones(64), own=own)


def test_a_table_without_counts_exerts_no_attraction(generator):
    x = queries(3, 2, 4, generator)
    (score,) = kmer_scores(KERNELS[:1], x, torch.zeros(16))
    assert torch.isneginf(score.log_density).all()
    assert not score.gradient.any()
    assert not kmer_effective_sample_size(KERNELS[0], x, torch.zeros(16)).any()
    assert kmer_scores(KERNELS, x[:0], torch.zeros(16))[2].gradient.shape == (0, 2, 4)


@pytest.mark.parametrize("scale", [0.02, 0.1, 3.0])
def test_float32_agrees_with_float64_however_far_the_nearest_kmer(scale, generator):
    """At 0.02 one mismatch weighs 1e-34: a product of eight of them is far below what float32 can hold."""
    x, counts = queries(6, 8, 4, generator), torch.zeros(4**8)
    counts[:3] = torch.tensor([5.0, 2.0, 1.0])
    x[0] = normalize(torch.tensor([1e-3, 0, 0, 1.0], dtype=torch.float64), dim=0)  # far from all of them
    (exact,) = kmer_scores([Laplace(scale)], x, counts)
    (found,) = kmer_scores([Laplace(scale)], x.float(), counts)
    assert found.gradient.dtype == torch.float32
    assert exact.log_density.isfinite().all()
    torch.testing.assert_close(found.log_density.double(), exact.log_density, rtol=1e-5, atol=1e-5)
    error = (found.gradient - exact.gradient).norm() / exact.gradient.norm()
    assert float(error) < 1e-5


@pytest.mark.parametrize(
    ("x", "kmers", "message"),
    [
        ((2, 3), 64, r"expected float queries \[n, w, K\]"),
        ((2, 0, 4), 1, r"expected float queries \[n, w, K\]"),
        ((2, 3, 4), 63, "expected counts of 64 k-mers, got 63"),
        ((2, 11, 4), 64, "11-mers of 4 letters are too many for a table of counts"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(x, kmers, message):
    with pytest.raises(ValueError, match=message):
        kmer_scores(KERNELS, torch.full(x, 0.5), torch.ones(kmers))


def test_other_directions_are_refused(generator):
    with pytest.raises(ValueError, match="direction must be one of gradient, displacement; got 'up'"):
        kmer_scores(KERNELS, queries(2, 1, 4, generator), torch.ones(4), direction="up")
