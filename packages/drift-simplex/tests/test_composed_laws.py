"""Fields of maps of sequences: windows and classes of letters as pullbacks, and reweighted tokens."""

import math
from dataclasses import replace

import pytest
import torch
from drift_core import BalancedField, Batch, KernelField, Laplace, PullbackField, SumField, smoothed_score
from drift_core.field import observe
from drift_core.lengthscale import Lengthscales
from drift_core.testing import check_field
from drift_simplex import CategoricalField, FisherRao, onehot_to_sphere
from torch import Generator, Tensor

SPACE, SCALE = FisherRao(), Lengthscales((0.7,))
PLAIN = KernelField(SPACE, Laplace, SCALE)
CLASSES = torch.tensor([[1, 0], [1, 0], [0, 1], [0, 1], [0, 1]], dtype=torch.float64)
"""Two classes of five letters."""


def window(x: Tensor) -> Tensor:
    return x[:, 1:4]


def classes(x: Tensor) -> Tensor:
    """Roots of the summed probabilities of the letters of each class."""
    return (x.square() @ CLASSES).sqrt()


def tokens_of(strings, seed: int) -> tuple[Tensor, Tensor]:
    """Tokens, and the points that they are."""
    tokens = strings(9, 6, 5, seed)
    return tokens, onehot_to_sphere(tokens, 5).double()


def test_windows_and_classes_obey_the_laws_and_so_does_their_sum(soft):
    x, data, model = soft(5, 6, 5, 0), soft(9, 6, 5, 1), soft(8, 6, 5, 2)
    parts = [PLAIN, *(PullbackField(mapping, PLAIN, SPACE) for mapping in (window, classes))]
    for field in (*parts, SumField(parts, [1.0, 0.5, 2.0])):
        check_field(field, Batch(x, data, model), tol=1e-5)
        check_field(field, Batch(x, data), tol=1e-5)


def test_a_class_is_followed_along_the_gradient_of_its_log_density(soft):
    """Against float64 autograd of the log-sum-exp of k(classes(x), classes(y)), in the tangent space."""
    x, data = soft(5, 6, 5, 0), soft(9, 6, 5, 1)
    leaf = x.clone().requires_grad_()
    images = classes(data)
    r = torch.stack([SPACE.dist(classes(leaf), image) for image in images], dim=1)
    (gradient,) = torch.autograd.grad((-r / 0.7).logsumexp(1).sum(), leaf)
    found = PullbackField(classes, PLAIN, SPACE)(Batch(x, data)).attraction
    torch.testing.assert_close(found, SPACE.proju(x, gradient), rtol=1e-8, atol=1e-9)


def test_tokens_are_mapped_by_a_map_of_their_own(soft, strings):
    tokens, points = tokens_of(strings, 1)
    x = soft(5, 6, 5, 0)
    letters = CategoricalField(5, Laplace, SCALE)
    field = PullbackField(window, letters, SPACE, map_data=lambda tokens: tokens[:, 1:4])
    expected = PullbackField(window, PLAIN, SPACE)(Batch(x, points)).field
    torch.testing.assert_close(field(Batch(x, tokens)).field, expected, rtol=1e-6, atol=1e-7)
    inside = smoothed_score(SPACE, Laplace(0.7), window(x), window(points)).gradient
    attraction = field(Batch(x, tokens)).attraction
    torch.testing.assert_close(attraction[:, 1:4], inside, rtol=1e-6, atol=1e-7)
    assert not attraction[:, [0, 4, 5]].any()


def test_a_window_alone_does_not_identify(soft):
    """Negative control: sequences that agree in the window and nowhere else exert no drift on one another."""
    data, other = soft(9, 6, 5, 1), soft(9, 6, 5, 2)
    other[:, 1:4] = data[:, 1:4]
    x, local = soft(5, 6, 5, 0), PullbackField(window, PLAIN, SPACE)
    assert float(local(Batch(x, data, other)).field.abs().max()) < 1e-12
    both = SumField([local, PLAIN], [1.0, 1.0])
    assert float(both(Batch(x, data, other)).field.abs().max()) > 0.05


def test_reweighted_tokens_obey_the_laws_before_and_after_they_learn(soft, strings):
    tokens, points = tokens_of(strings, 1)
    field = BalancedField(CategoricalField(5, Laplace, SCALE), tokens)
    batch = Batch(soft(5, 6, 5, 0), torch.arange(9), soft(8, 6, 5, 2), progress=0.1)
    check_field(field, batch, equal=replace(batch, model=points))
    for _ in range(5):
        observe(field, batch)
    assert float(field.potential.std()) > 0
    check_field(field, batch)
    drawn = torch.randint(9, (4,), generator=Generator().manual_seed(0))
    check_field(field, replace(batch, data=drawn))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_of_tokens_become_those_of_sinkhorn(soft, strings, dtype):
    x, tokens = soft(30, 4, 3, 0), strings(10, 4, 3)
    field = BalancedField(CategoricalField(3, Laplace, Lengthscales((0.1,))), tokens, limit=30.0)
    batch = Batch(x.to(dtype), torch.arange(10), progress=0.0)
    for _ in range(500):
        observe(field, batch)
    log_k = -x.gather(2, tokens.T[None].expand(30, -1, -1)).arccos().square().sum(1).sqrt() / 0.1
    f, g = torch.zeros(30, dtype=torch.float64), torch.zeros(10, dtype=torch.float64)
    for _ in range(2000):  # rows sum to 1/30, columns to 1/10
        f = -math.log(30) - (log_k + g).logsumexp(1)
        g = -math.log(10) - (log_k + f[:, None]).logsumexp(0)
    assert float(g.max() - g.min()) > 0.5
    torch.testing.assert_close(field.potential.double(), g - g.mean(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_strings_out_of_reach_stay_bounded_and_attract_nobody(soft, monkeypatch, dtype):
    """Data over the first two letters, but for one string of the third, 40 nats away."""
    tokens = torch.cat([torch.cartesian_prod(*[torch.arange(2)] * 3), torch.full((1, 3), 2)]).repeat(1, 3)
    x = torch.cat([soft(20, 9, 2), torch.zeros(20, 9, 1)], dim=2).to(dtype)
    field = CategoricalField(3, Laplace, Lengthscales((0.05,)))
    log_k = field.log_kernel(x, tokens)
    monkeypatch.setattr(CategoricalField, "log_kernel", lambda *_: log_k)  # the same at every step
    balanced, batch = BalancedField(field, tokens), Batch(x, torch.arange(9), progress=0.0)
    for _ in range(10_000):
        observe(balanced, batch)
    assert float(balanced.potential[-1]) == 5
    assert float(balanced.potential.max() - balanced.potential.min()) <= 10
    near = Batch(x, tokens[:-1], data_log_weight=balanced.potential[:-1])
    torch.testing.assert_close(balanced(batch).attraction, field(near).attraction, atol=1e-4, rtol=1e-5)
