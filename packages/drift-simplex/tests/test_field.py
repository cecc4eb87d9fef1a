"""The field of a training run on tokens: equal to that on points, conditional, and able to find strings."""

import math
from functools import partial

import pytest
import torch
from drift_core import Batch, Gaussian, KernelField, Laplace, Matern, drift, effective_sample_size
from drift_core.kernel.by_name import make_kernel
from drift_core.lengthscale import parse_lengthscales
from drift_core.training.loop import Field
from drift_simplex import CategoricalField, FisherRao, decode, onehot_to_sphere
from torch import Tensor

ONE, SEVERAL = parse_lengthscales("0.7"), parse_lengthscales("3:0.3,1")


def angles(x: Tensor, y: Tensor) -> Tensor:
    return 2 * torch.atan2((x[:, None] - y).norm(dim=-1), (x[:, None] + y).norm(dim=-1))


def test_it_is_a_field_of_the_training_loop():
    field = CategoricalField(4, Laplace, ONE)
    assert isinstance(field, Field)
    assert isinstance(field.manifold, FisherRao)


@pytest.mark.parametrize("direction", ["gradient", "displacement"])
@pytest.mark.parametrize("scales", [ONE, SEVERAL], ids=["one", "several"])
@pytest.mark.parametrize("progress", [0.0, 0.2, 1.0])
def test_tokens_drift_like_their_points(direction, scales, progress, soft, strings):
    model, tokens = soft(12, 5, 4), strings(30, 5, 4)
    x, own = model[3:8], torch.arange(3, 8)
    kernel = partial(make_kernel, "matern", nu=1.5)
    ours = CategoricalField(4, kernel, scales, direction)(Batch(x, tokens, model, own, progress=progress))
    data = onehot_to_sphere(tokens, 4).double()
    dense = KernelField(FisherRao(), kernel, scales, direction)(Batch(x, data, model, own, progress=progress))
    torch.testing.assert_close(ours, dense, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("product", [False, True])
@pytest.mark.parametrize("direction", ["gradient", "displacement"])
@pytest.mark.parametrize("progress", [0.0, 0.5])
def test_tokens_attract_by_lookups_and_as_their_points_repel(progress, direction, product, soft, strings):
    """Points go through the dense sums, tokens through lookups; a third of the pairs are excluded."""
    x, tokens = soft(6, 5, 4), strings(20, 5, 4)
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(6, 20, generator=generator, dtype=torch.float64)
    weight[torch.rand(6, 20, generator=generator) < 1 / 3] = -torch.inf
    field = CategoricalField(4, Laplace, SEVERAL, direction, product)
    for log_weight in (None, weight):
        score = field.attraction_to_tokens(x, tokens, progress, log_weight=log_weight)
        given = {"data_log_weight": log_weight, "model_log_weight": log_weight}
        points = onehot_to_sphere(tokens, 4).double()
        terms = field(Batch(x, tokens, points, None, **given, progress=progress))
        torch.testing.assert_close(score, terms.attraction, rtol=0, atol=0)
        torch.testing.assert_close(score, terms.repulsion, rtol=1e-9, atol=1e-9)
        assert float(score.norm()) > 0.1


@pytest.mark.parametrize("product", [False, True])
@pytest.mark.parametrize("direction", ["gradient", "displacement"])
def test_swapping_data_and_model_flips_the_field(product, direction, soft, strings):
    x, a, b = soft(6, 5, 4), strings(20, 5, 4, 1), strings(20, 5, 4, 2)
    points = [onehot_to_sphere(tokens, 4).double() for tokens in (a, b)]
    field = CategoricalField(4, Laplace, SEVERAL, direction, product)
    there = field(Batch(x, a, points[1], None)).field
    back = field(Batch(x, b, points[0], None)).field
    assert float(there.norm()) > 0.1
    torch.testing.assert_close(there, -back, rtol=1e-8, atol=1e-8)
    assert float(field(Batch(x, a, points[0], None)).field.abs().max()) < 1e-9


def test_gaussian_displacement_is_the_scaled_gradient(soft, strings):
    x, tokens = soft(6, 5, 4), strings(20, 5, 4)
    for product in (False, True):
        gradient, displacement = (
            CategoricalField(4, Gaussian, ONE, direction, product)(Batch(x, tokens, x, torch.arange(6))).field
            for direction in ("gradient", "displacement")
        )
        torch.testing.assert_close(displacement, 0.49 * gradient, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("product", [False, True])
def test_conditions_enter_through_the_log_weights(product, soft, strings):
    """The gradient in x alone of log sum_j k(c, c'_j) k(x, x'_j), for data and for the other samples."""
    x, tokens = soft(6, 5, 4), strings(20, 5, 4)
    generator = torch.Generator().manual_seed(3)
    c, data_c = (torch.randn(count, 2, generator=generator, dtype=torch.float64) for count in (6, 20))
    log_k = lambda a, b: Gaussian(0.8).log(torch.cdist(a, b))  # noqa: E731
    kernel = Matern(0.7, 1.5)

    def score(references: Tensor, log_weight: Tensor) -> Tensor:
        leaf = x.clone().requires_grad_()
        theta = angles(leaf, references)
        logits = kernel.log(theta).sum(-1) if product else kernel.log(theta.norm(dim=-1))
        (gradient,) = torch.autograd.grad((logits + log_weight).logsumexp(1).sum(), leaf)
        return gradient - (gradient * x).sum(-1, keepdim=True) * x

    others = log_k(c, c).fill_diagonal_(-torch.inf)
    expected = score(onehot_to_sphere(tokens, 4).double(), log_k(c, data_c)) - score(soft(6, 5, 4), others)
    field = CategoricalField(4, partial(make_kernel, "matern", nu=1.5), ONE, product=product)
    terms = field(
        Batch(x, tokens, x, torch.arange(6), data_log_weight=log_k(c, data_c), model_log_weight=log_k(c, c))
    )
    torch.testing.assert_close(terms.field, expected, rtol=1e-6, atol=1e-6)


def test_conditions_that_share_nothing_are_separate_fields(soft, strings):
    x, tokens = soft(8, 5, 4), strings(20, 5, 4)
    c, data_c = torch.arange(8) % 2, torch.arange(20) % 2
    same = lambda a, b: torch.where(a[:, None] == b, 0.0, -torch.inf).double()  # noqa: E731
    field = CategoricalField(4, Laplace, ONE)
    together = field(
        Batch(x, tokens, x, torch.arange(8), data_log_weight=same(c, data_c), model_log_weight=same(c, c))
    )
    for value in (0, 1):
        points = onehot_to_sphere(tokens[data_c == value], 4).double()
        alone = drift(FisherRao(), Laplace(0.7), x[c == value], points)
        torch.testing.assert_close(together.field[c == value], alone, rtol=1e-9, atol=1e-9)


def test_effective_samples_are_those_of_the_points(soft, strings):
    x, tokens = soft(10, 6, 4), strings(40, 6, 4)
    field = CategoricalField(4, Laplace, SEVERAL)
    data = onehot_to_sphere(tokens, 4).double()
    for progress, scale in ((0.0, 1.0), (1.0, 0.3)):
        expected = float(effective_sample_size(FisherRao(), Laplace(scale), x, data).mean())
        found = field.diagnostics(Batch(x, tokens, progress=progress))
        assert found == pytest.approx({"ess": expected})
    only = torch.full((40,), -torch.inf, dtype=torch.float64)
    only[7] = 0
    found = field.diagnostics(Batch(x, tokens, data_log_weight=only))
    assert found == pytest.approx({"ess": 1.0})


def test_particles_spread_over_all_strings_of_a_small_language(strings):
    """16 random strings of 8 letters out of 4^8: particles settle on each of them in equal shares."""
    language, steps = strings(16, 8, 4, 5), 80
    x = FisherRao().projx(torch.rand(128, 8, 4, generator=torch.Generator().manual_seed(0)))
    field = CategoricalField(4, Laplace, parse_lengthscales("2:0.2"))
    for step in range(steps):
        v = field(Batch(x, language, x, torch.arange(len(x)), progress=step / steps)).field
        x = FisherRao().expmap(x, 0.3 * math.sqrt(1 - step / steps) * v)
    found = (decode(x)[:, None] == language).all(-1)
    assert float(found.any(1).double().mean()) > 0.9
    shares = found.sum(0).double() / len(x)
    assert float((shares - 1 / 16).abs().sum()) < 0.3


@pytest.mark.parametrize("scales", [ONE, SEVERAL], ids=["one", "several"])
@pytest.mark.parametrize("direction", ["gradient", "displacement"])
def test_kmers_attract_like_the_tokens_that_they_count(direction, scales, soft, strings):
    x, tokens = soft(6, 3, 4), strings(50, 3, 4)
    counts = torch.zeros(64, dtype=torch.int64)
    for a, b, c in tokens.tolist():
        counts[16 * a + 4 * b + c] += 1
    field = CategoricalField(4, Laplace, scales, direction, product=True)
    attraction = field.attraction_to_tokens(x, tokens, 0.3)
    torch.testing.assert_close(field.attraction_to_kmers(x, counts, 0.3), attraction, rtol=1e-9, atol=1e-10)
    size = field.diagnostics(Batch(x, tokens, progress=0.3))["ess"]
    assert field.effective_kmers(x, counts, 0.3) == pytest.approx(size)
    for method in (
        CategoricalField(4, Laplace, ONE).attraction_to_kmers,
        CategoricalField(4, Laplace, ONE).effective_kmers,
    ):
        with pytest.raises(ValueError, match="product=True"):
            method(x, counts)


@pytest.mark.parametrize("product", [True, False])
def test_points_attract_as_the_model_repels(product, soft, strings):
    x, tokens, own = soft(6, 5, 4), strings(9, 5, 4), torch.arange(6)
    field = CategoricalField(4, Laplace, SEVERAL, product=product)
    weight = torch.linspace(-1, 1, 6).double()
    repulsion = field(Batch(x, tokens, x, own, progress=0.3, model_log_weight=weight)).repulsion
    found = field.attraction_to_points(x, x, 0.3, log_weight=weight, self_index=own)
    torch.testing.assert_close(found, repulsion)
