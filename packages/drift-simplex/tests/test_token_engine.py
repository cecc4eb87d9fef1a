"""The fused loop over tokens: against the torch form in float64, and at the edges."""

import math

import pytest
import torch
from drift_core import Gaussian, Laplace, Matern, Mixture, RadialKernel, engine
from drift_core.engine import token_scores
from drift_core.engine.build import compiled
from drift_simplex import onehot, onehot_scores
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

pytestmark = pytest.mark.skipif(compiled() is None, reason="no C compiler for the engine")

KERNELS = [
    Laplace(0.7),
    Gaussian(0.7),
    Matern(0.7, 1.5),
    Matern(0.7, 0.8),
    Mixture((Laplace(0.4), Gaussian(1.3)), (0.3, 2.0)),
]
SHAPES = {"few": (5, 7, 3, 4), "blocks": (33, 1100, 9, 5), "long": (17, 40, 70, 4), "groups": (16, 32, 65, 3)}
"""Queries, references, positions, letters."""


def clouds(shape: str) -> tuple[Tensor, Tensor]:
    """Soft points, some of them close to their letters, and tokens."""
    n, m, length, letters = SHAPES[shape]
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(n, length, letters, generator=generator)
    points[: n // 2, ::2, 0] += 30
    return normalize(points, dim=-1), torch.randint(letters, (m, length), generator=generator)


def weights(kind: str, n: int, m: int) -> Tensor | None:
    """Log-weights of references or of pairs, some of which are excluded."""
    if kind == "none":
        return None
    weight = torch.randn(1 if kind == "references" else n, m, generator=torch.Generator().manual_seed(1))
    if kind == "problems":  # side by side, one of them without samples
        return weight.masked_fill(torch.arange(n)[:, None] * 3 // n != torch.arange(m) % 4, -math.inf)
    return weight.masked_fill(weight > 1, -math.inf)


def errors(kernels: list[RadialKernel], x: Tensor, tokens: Tensor, weight: Tensor | None, **kw: object):
    """Largest errors of the fused scores: of log-densities, and of gradients relative to the largest."""
    fused = onehot_scores(kernels, x, tokens, log_weight=weight, **kw)
    double = None if weight is None else weight.double()
    with engine.disabled():
        torch_form = onehot_scores(kernels, x.double(), tokens, log_weight=double, **kw)
    for ours, exact in zip(fused, torch_form, strict=True):
        assert ours.gradient.dtype == torch.float32
        size = exact.gradient.flatten(1).norm(dim=1).max()
        yield float((ours.log_density - exact.log_density).abs().max())
        yield float((ours.gradient - exact.gradient).flatten(1).norm(dim=1).max() / size)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["none", "references", "pairs", "problems"])
@pytest.mark.parametrize("product", [False, True])
@pytest.mark.parametrize("direction", ["gradient", "displacement"])
def test_all_cases_agree_with_the_torch_form(shape, kind, product, direction):
    x, tokens = clouds(shape)
    weight = weights(kind, len(x), len(tokens))
    found = list(errors(KERNELS, x, tokens, weight, direction=direction, product=product))
    assert max(found) < 2e-5


def test_the_engine_is_used(monkeypatch):
    x, tokens = clouds("few")
    calls = []
    letters = onehot.Letters
    monkeypatch.setattr(onehot, "Letters", lambda *args: calls.append(args) or letters(*args))
    onehot_scores(KERNELS, x, tokens)
    assert not calls
    with engine.disabled():
        onehot_scores(KERNELS, x, tokens)
    assert calls


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("product", [False, True])
def test_the_torch_form_is_as_accurate(shape, product):
    """Machines without a compiler use it, and GPUs."""
    x, tokens = clouds(shape)
    with engine.disabled():
        assert max(errors(KERNELS, x, tokens, weights("pairs", len(x), len(tokens)), product=product)) < 2e-5


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 40), st.integers(1, 60), st.integers(1, 36), st.integers(2, 9), st.integers(0, 9),
    st.floats(0.05, 5.0),
)  # fmt: skip
def test_any_size_agrees_with_the_torch_form(n, m, length, letters, seed, lengthscale):
    generator = torch.Generator().manual_seed(seed)
    x = normalize(torch.rand(n, length, letters, generator=generator) + 1e-3, dim=-1)
    tokens = torch.randint(letters, (m, length), generator=generator)
    density, gradient = errors([Matern(lengthscale, 1.5)], x, tokens, None)
    assert gradient < 2e-5
    assert density < 2e-5 * max(1.0, 1 / lengthscale)


@pytest.mark.parametrize("product", [False, True])
def test_nearer_references_follow_farther_ones(product):
    """Every tile of references is nearer than those before, by more than a float32 weight can tell."""
    x, _ = clouds("long")
    x = normalize(x + 100 * torch.eye(4)[0], dim=-1)
    tokens = (torch.arange(70) >= torch.arange(0, 71).repeat_interleave(3)[:, None]).long()
    assert max(errors([Laplace(0.02)], x, tokens, None, product=product)) < 1e-4


def test_excluded_references_nan_and_underflow():
    x, tokens = clouds("few")
    nothing = torch.full((1, 7), -math.inf)
    (score,) = onehot_scores([Laplace(0.7)], x, tokens, log_weight=nothing)
    assert bool((score.log_density == -math.inf).all())
    assert bool((score.gradient == 0).all())
    (far,) = onehot_scores([Gaussian(1e-3)], x, tokens)
    assert bool(far.log_density.isfinite().all())
    assert bool((far.gradient.flatten(1).norm(dim=1) > 1e3).all())
    lost = x.clone()
    lost[2, 1, 0] = torch.nan
    (score,) = onehot_scores([Laplace(0.7)], lost, tokens)
    assert score.log_density.isnan().tolist() == [False, False, True, False, False]


def test_a_query_depends_neither_on_others_nor_on_threads():
    x, tokens = clouds("blocks")
    threads = torch.get_num_threads()
    (whole,) = onehot_scores([Matern(0.2, 1.5)], x, tokens)
    try:
        torch.set_num_threads(1)
        (one,) = onehot_scores([Matern(0.2, 1.5)], x, tokens)
    finally:
        torch.set_num_threads(threads)
    (last,) = onehot_scores([Matern(0.2, 1.5)], x[-2:], tokens)
    assert torch.equal(whole.gradient, one.gradient)
    assert torch.equal(whole.log_density[-2:], last.log_density)
    assert torch.equal(whole.gradient[-2:], last.gradient)


def test_what_the_engine_leaves_to_torch():
    table, named = torch.rand(6, 4), torch.zeros(2, 3, dtype=torch.int32)
    assert token_scores([Laplace(1.0)], [table], named) is not None
    assert token_scores([Laplace(1.0)], [table.double()], named) is None
    assert token_scores([Laplace(1.0)], [table.requires_grad_()], named) is None
