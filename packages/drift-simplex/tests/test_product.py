"""Product kernels against float64 autograd of their definition, soft and one-hot."""

import pytest
import torch
from drift_core import Gaussian, Laplace, Matern, Mixture, Power, Sphere, smoothed_score
from drift_simplex import (
    onehot_log_kernel,
    onehot_score,
    onehot_to_sphere,
    product_score,
    product_scores,
)
from torch import Tensor

KERNELS = [
    Laplace(0.7),
    Gaussian(0.7),
    Matern(0.7, 1.5),
    Matern(0.7, 0.8),
    Mixture((Laplace(0.4), Gaussian(1.0)), (1.0, 2.0)),
]
DIRECTIONS = ["gradient", "displacement"]


def angles(x: Tensor, y: Tensor) -> Tensor:
    """Angles [n, m, L] by broadcasting."""
    return 2 * torch.atan2((x[:, None] - y).norm(dim=-1), (x[:, None] + y).norm(dim=-1))


def by_autograd(kernel, x: Tensor, y: Tensor, log_weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """logsumexp_j (w_ij + sum_l log k1(theta_ijl)) and its Riemannian gradient."""
    x = x.clone().requires_grad_()
    logits = kernel.log(angles(x, y)).sum(-1)
    log_density = (logits if log_weight is None else logits + log_weight).logsumexp(1)
    (gradient,) = torch.autograd.grad(log_density.sum(), x)
    return log_density.detach(), (gradient - (gradient * x).sum(-1, keepdim=True) * x).detach()


def by_logarithms(kernel, x: Tensor, y: Tensor) -> Tensor:
    """Mean of log_x(y) under the softmax of the product kernel."""
    weight = kernel.log(angles(x, y)).sum(-1).softmax(1)
    logs = Sphere().logmap(x[:, None].expand(-1, len(y), -1, -1), y.expand(len(x), -1, -1, -1))
    return (weight[..., None, None] * logs).sum(1)


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_soft_and_onehot_gradients_are_those_of_autograd(kernel, soft, strings):
    x, y, tokens = soft(6, 5, 4, 0), soft(9, 5, 4, 1), strings(20, 5, 4)
    vertices = onehot_to_sphere(tokens, 4).double()
    for score, references in (
        (product_score(kernel, x, y), y),
        (product_score(kernel, x, vertices), vertices),
        (onehot_score(kernel, x, tokens, product=True), vertices),
    ):
        log_density, gradient = by_autograd(kernel, x, references)
        torch.testing.assert_close(score.log_density, log_density, rtol=1e-7, atol=1e-7)
        torch.testing.assert_close(score.gradient, gradient, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(
        onehot_log_kernel(kernel, x, tokens, product=True), kernel.log(angles(x, vertices)).sum(-1)
    )


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_displacements_are_weighted_means_of_logarithms(kernel, soft, strings):
    x, y, tokens = soft(6, 5, 4, 0), soft(9, 5, 4, 1), strings(20, 5, 4)
    soft_score = product_score(kernel, x, y, direction="displacement")
    torch.testing.assert_close(soft_score.gradient, by_logarithms(kernel, x, y))
    score = onehot_score(kernel, x, tokens, direction="displacement", product=True)
    torch.testing.assert_close(score.gradient, by_logarithms(kernel, x, onehot_to_sphere(tokens, 4).double()))


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_only_for_gaussians_is_the_product_the_kernel_of_the_total_distance(direction, soft):
    x, y = soft(6, 5, 4, 0), soft(9, 5, 4, 1)
    for kernel, equal in ((Gaussian(0.8), True), (Laplace(0.8), False)):
        product = product_score(kernel, x, y, direction=direction)
        total = smoothed_score(Power(Sphere()), kernel, x, y, direction=direction)
        assert torch.allclose(product.gradient, total.gradient, rtol=1e-9, atol=1e-9) == equal


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("shape", [(32, 35), (1024, 4)], ids=str)
def test_float32_agrees_with_float64(direction, shape, soft, strings):
    x, y, tokens = soft(5, *shape, 0).float(), soft(8, *shape, 1).float(), strings(20, *shape)
    exact = product_score(Laplace(20.0), x.double(), y.double(), direction=direction).gradient
    ours = product_score(Laplace(20.0), x, y, direction=direction).gradient
    assert float((ours - exact).norm() / exact.norm()) < 1e-5
    kw = {"direction": direction, "product": True}
    exact = onehot_score(Laplace(20.0), x.double(), tokens, **kw).gradient
    assert float((onehot_score(Laplace(20.0), x, tokens, **kw).gradient - exact).norm() / exact.norm()) < 1e-5


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("chunk_size", [None, 1, 6])
def test_chunks_weights_and_exclusions(direction, chunk_size, soft):
    x, y = soft(5, 4, 3, 0), soft(20, 4, 3, 1)
    log_weight = torch.randn(5, 20, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    index = torch.tensor([3, 19, 7, 25, -1])
    kw = {"direction": direction, "chunk_size": chunk_size}
    score = product_score(Laplace(0.5), x, y, log_weight=log_weight, self_index=index, **kw)
    for row, i in enumerate(index.tolist()):
        kept = torch.tensor([j for j in range(20) if j != i])
        alone = product_score(
            Laplace(0.5), x[[row]], y[kept], log_weight=log_weight[row, kept], direction=direction
        )
        torch.testing.assert_close(score.gradient[row], alone.gradient[0], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(score.log_density[row], alone.log_density[0], rtol=1e-9, atol=1e-9)
    bare = product_score(Laplace(0.5), x, y, self_index=index, **kw)
    exclusions = torch.zeros(5, 20, dtype=torch.float64)
    exclusions[[0, 1, 2], [3, 19, 7]] = -torch.inf
    torch.testing.assert_close(bare, product_score(Laplace(0.5), x, y, log_weight=exclusions, **kw))


def test_many_blocks_agree_with_autograd(soft):
    x, y = soft(150, 2, 3, 0), soft(3_000, 2, 3, 1)
    log_density, gradient = by_autograd(Matern(0.3, 1.5), x, y)
    score = product_score(Matern(0.3, 1.5), x, y)
    torch.testing.assert_close(score.log_density, log_density, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(score.gradient, gradient, rtol=1e-7, atol=1e-7)


def test_several_kernels_share_the_angles(soft):
    x, y = soft(5, 4, 3, 0), soft(8, 4, 3, 1)
    for kernel, score in zip(KERNELS, product_scores(KERNELS, x, y, chunk_size=3), strict=True):
        torch.testing.assert_close(score, product_score(kernel, x, y))
    assert product_scores(KERNELS, x[:0], y)[1].gradient.shape == (0, 4, 3)


def test_coincident_points_give_finite_scores(soft):
    for x in (soft(6, 4, 3), soft(6, 4, 3).float()):
        for direction in DIRECTIONS:
            score = product_score(Laplace(0.5), x, x, direction=direction)
            assert bool(score.gradient.isfinite().all())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.ones(5, 3)}, "expected clouds"),
        ({"y": torch.ones(0, 4, 3, dtype=torch.float64)}, "at least one reference"),
        ({"direction": "up"}, "got 'up'"),
        ({"chunk_size": -1}, "got -1"),
        ({"log_weight": torch.ones(4)}, r"got shape \[4\]"),
    ],
)
def test_errors(change, message, soft):
    given = {"x": soft(5, 4, 3), "y": soft(7, 4, 3), **change}
    with pytest.raises(ValueError, match=message):
        product_score(Laplace(0.5), given.pop("x"), given.pop("y"), **given)
