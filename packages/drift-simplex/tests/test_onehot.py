"""Scores against tokens: against the dense field, float64 autograd, and at the edges of float32."""

import subprocess
import sys
import textwrap

import pytest
import torch
from drift_core import (
    Gaussian,
    Laplace,
    Matern,
    Mixture,
    Power,
    RadialKernel,
    Sphere,
    SphericalMatern,
    effective_sample_size,
    merge_scores,
    smoothed_score,
)
from drift_simplex import (
    kmer_effective_sample_size,
    kmer_scores,
    onehot_cdist,
    onehot_effective_sample_size,
    onehot_log_kernel,
    onehot_score,
    onehot_scores,
    onehot_to_sphere,
    product_scores,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

PRODUCT = Power(Sphere())
KERNELS = [
    Laplace(0.7),
    Gaussian(0.7),
    Matern(0.7, 1.5),
    Matern(0.7, 3.5),
    Matern(0.7, 0.8),
    Matern(0.7, 6.3),
    Mixture((Laplace(0.4), Gaussian(1.3)), (0.3, 2.0)),
]
DIRECTIONS = ["gradient", "displacement"]


def dense(kernel: RadialKernel, x: Tensor, tokens: Tensor, **kw: object):
    """The dense field in float64."""
    return smoothed_score(PRODUCT, kernel, x.double(), onehot_to_sphere(tokens, x.shape[2]).double(), **kw)


def autograd_score(log_kernel, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """logsumexp_j log k and its Riemannian gradient by autograd, from broadcast angles [n, m, L]."""
    x = torch.nn.functional.normalize(x.double(), dim=-1).requires_grad_()
    theta = 2 * torch.atan2((x[:, None] - y).norm(dim=-1), (x[:, None] + y).norm(dim=-1))
    log_density = log_kernel(theta).logsumexp(1)
    (gradient,) = torch.autograd.grad(log_density.sum(), x)
    return log_density.detach(), (gradient - (gradient * x).sum(-1, keepdim=True) * x).detach()


def relative(a: Tensor, exact: Tensor) -> float:
    return float(((a - exact).flatten(1).norm(dim=1) / exact.flatten(1).norm(dim=1)).max())


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("shape", [(9, 30, 5, 4), (4, 60, 40, 7)], ids=str)
def test_tokens_give_the_dense_score(kernel, direction, shape, soft, strings):
    n, m, length, vocab_size = shape
    x, tokens = soft(n, length, vocab_size), strings(m, length, vocab_size)
    score = onehot_score(kernel, x, tokens, direction=direction)
    torch.testing.assert_close(score, dense(kernel, x, tokens, direction=direction), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_gradient_is_that_of_float64_autograd(kernel, soft, strings):
    x, tokens = soft(8, 6, 5), strings(40, 6, 5)
    y = onehot_to_sphere(tokens, 5).double()
    log_density, gradient = autograd_score(lambda theta: kernel.log(theta.norm(dim=-1)), x, y)
    score = onehot_score(kernel, x, tokens)
    torch.testing.assert_close(score.log_density, log_density, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(score.gradient, gradient, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("shape", [(32, 35), (256, 4), (1024, 4)], ids=str)
@pytest.mark.parametrize("scale", [0.3, 3.0])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_long_sums_in_float32_agree_with_float64(shape, scale, direction, soft, strings):
    x, tokens = soft(6, *shape).float(), strings(60, *shape)
    exact = dense(Laplace(scale), x, tokens, direction=direction)
    score = onehot_score(Laplace(scale), x, tokens, direction=direction)
    assert score.gradient.dtype == torch.float32
    assert relative(score.gradient, exact.gradient) < 1e-5
    assert float(((score.log_density - exact.log_density) / exact.log_density).abs().max()) < 1e-6


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("product", [False, True])
@pytest.mark.parametrize("chunk_size", [1, 7, 64])
def test_chunks_give_the_same_score(direction, product, chunk_size, soft, strings):
    x, tokens = soft(9, 5, 4), strings(64, 5, 4)
    log_weight = torch.randn(9, 64, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    kw = {"direction": direction, "log_weight": log_weight, "product": product}
    whole = onehot_score(Laplace(0.5), x, tokens, **kw)
    parts = onehot_score(Laplace(0.5), x, tokens, chunk_size=chunk_size, **kw)
    torch.testing.assert_close(parts, whole, rtol=1e-10, atol=1e-10)


def test_many_blocks_of_queries_and_references(soft, strings):
    x, tokens = soft(300, 3, 5), strings(5_000, 3, 5)
    torch.testing.assert_close(
        onehot_score(Laplace(0.5), x, tokens), dense(Laplace(0.5), x, tokens), rtol=1e-9, atol=1e-9
    )


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 10**6),
    st.lists(st.integers(1, 12), min_size=1, max_size=5),
    st.integers(1, 40),
    st.integers(2, 6),
    st.floats(0.05, 10),
)
def test_any_shards_merge_to_the_dense_score(seed, sizes, length, vocab_size, scale):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(3, length, vocab_size, generator=generator).double()
    x = torch.nn.functional.normalize(x, dim=-1)
    tokens = torch.randint(vocab_size, (sum(sizes), length), generator=generator)
    log_weight = torch.randn(sum(sizes), generator=generator).double()
    parts = zip(tokens.split(sizes), log_weight.split(sizes), strict=True)
    scores = [onehot_score(Laplace(scale), x, part, log_weight=w) for part, w in parts]
    exact = dense(Laplace(scale), x, tokens, log_weight=log_weight)
    torch.testing.assert_close(merge_scores(*scores), exact, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("shape", [(20,), (6, 1), (6, 20), (1, 20)])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_log_weights_broadcast(shape, direction, soft, strings):
    x, tokens = soft(6, 4, 3), strings(20, 4, 3)
    log_weight = torch.randn(shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    kw = {"log_weight": log_weight, "direction": direction}
    torch.testing.assert_close(
        onehot_score(Laplace(0.5), x, tokens, **kw),
        dense(Laplace(0.5), x, tokens, **kw),
        rtol=1e-9,
        atol=1e-9,
    )


@pytest.mark.parametrize("product", [False, True])
def test_excluded_references_might_as_well_not_be_there(product, soft, strings):
    x, tokens = soft(4, 5, 4), strings(12, 5, 4)
    log_weight = torch.zeros(4, 12, dtype=torch.float64)
    log_weight[:, 8:] = -torch.inf
    log_weight[1] = -torch.inf
    score = onehot_score(Laplace(0.5), x, tokens, log_weight=log_weight, chunk_size=5, product=product)
    kept = onehot_score(Laplace(0.5), x, tokens[:8], product=product)
    assert score.log_density[1] == -torch.inf
    assert bool((score.gradient[1] == 0).all())
    others = torch.tensor([0, 2, 3])
    torch.testing.assert_close(score.gradient[others], kept.gradient[others], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("product", [False, True])
def test_several_kernels_share_a_pass(direction, product, soft, strings):
    x, tokens = soft(7, 5, 4), strings(40, 5, 4)
    together = onehot_scores(KERNELS, x, tokens, direction=direction, chunk_size=16, product=product)
    for kernel, score in zip(KERNELS, together, strict=True):
        alone = onehot_score(kernel, x, tokens, direction=direction, product=product)
        torch.testing.assert_close(score, alone)
    assert onehot_scores(KERNELS, x[:0], tokens)[2].gradient.shape == (0, 5, 4)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_any_integer_type_will_do(dtype, soft, strings):
    x, tokens = soft(5, 33, 100), strings(20, 33, 100)
    expected = onehot_score(Laplace(0.5), x, tokens)
    torch.testing.assert_close(onehot_score(Laplace(0.5), x, tokens.to(dtype)), expected, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("product", [False, True])
def test_queries_on_a_reference_have_no_direction_towards_it(dtype, direction, product, strings):
    tokens = strings(30, 6, 4)
    x = onehot_to_sphere(tokens, 4).to(dtype)
    kw = {"direction": direction, "product": product}
    for kernel in KERNELS:
        alone = onehot_score(kernel, x[:1], tokens[:1], **kw)
        assert bool((alone.gradient == 0).all())
        score = onehot_score(kernel, x, tokens, **kw)
        assert bool(score.gradient.isfinite().all() and score.log_density.isfinite().all())
        others = [
            onehot_score(kernel, x[i : i + 1], tokens[(tokens != tokens[i]).any(1)], **kw) for i in range(3)
        ]
        assert all(bool((other.gradient != 0).any()) for other in others)


@pytest.mark.parametrize("angle", [1e-6, 1e-4, 1e-2])
def test_angles_hold_near_the_vertices(angle):
    tokens = torch.arange(5)[:, None]
    x = onehot_to_sphere(tokens, 5)
    x = torch.where(x == 1, 1.0, angle / 2)  # off the vertex by `angle`, not yet of unit length
    x = torch.nn.functional.normalize(x, dim=-1)
    exact = PRODUCT.cdist(x.double(), onehot_to_sphere(tokens, 5).double())
    r = onehot_cdist(x, tokens)
    assert float(((r - exact) / exact).abs().max()) < 1e-6
    naive = torch.arccos(x[:, 0].clamp(max=1)).diagonal()
    if angle <= 1e-4:
        assert not float(((naive - exact.diagonal()) / exact.diagonal()).abs().max()) < 0.1
    score = onehot_score(Laplace(0.3), x, tokens)
    assert relative(score.gradient, dense(Laplace(0.3), x, tokens).gradient) < 1e-5


def test_queries_on_the_far_side_of_the_sphere(strings):
    """Nothing assumes the orthant: the score is that of the whole sphere, antipodes included."""
    x = torch.randn(8, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x, tokens = torch.nn.functional.normalize(x, dim=-1), strings(10, 4, 3)
    torch.testing.assert_close(
        onehot_score(Gaussian(1.0), x, tokens), dense(Gaussian(1.0), x, tokens), rtol=1e-9, atol=1e-9
    )
    antipodes = onehot_score(Laplace(1.0), -onehot_to_sphere(tokens, 3), tokens)
    assert bool(antipodes.gradient.isfinite().all())


def test_gaussian_displacement_is_the_scaled_gradient(soft, strings):
    x, tokens = soft(8, 6, 5), strings(30, 6, 5)
    gradient, displacement = (
        onehot_score(Gaussian(0.6), x, tokens, direction=direction).gradient for direction in DIRECTIONS
    )
    torch.testing.assert_close(displacement, 0.36 * gradient, rtol=1e-10, atol=1e-12)
    gradient, displacement = (
        onehot_score(Laplace(0.6), x, tokens, direction=direction).gradient for direction in DIRECTIONS
    )
    scale = (displacement * gradient).sum() / gradient.square().sum()
    assert relative(displacement, scale * gradient) > 0.01  # true of no other kernel


@pytest.mark.parametrize("product", [False, True])
def test_scores_are_differentiable(product, soft, strings):
    x, tokens = soft(5, 4, 3), strings(9, 4, 3)
    kernel = Gaussian(0.8)
    leaf = x.clone().requires_grad_()
    score = onehot_score(kernel, leaf, tokens, product=product, chunk_size=4)
    (gradient,) = torch.autograd.grad(score.log_density.sum(), leaf)
    gradient = gradient - (gradient * x).sum(-1, keepdim=True) * x
    torch.testing.assert_close(gradient, score.gradient.detach(), rtol=1e-9, atol=1e-9)
    leaf = x.clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda at: onehot_score(kernel, at, tokens, product=product).gradient, leaf, atol=1e-6
    )


def test_effective_sample_sizes_are_those_of_the_points(soft, strings):
    x, tokens = soft(10, 6, 4), strings(40, 6, 4)
    log_weight = torch.randn(10, 40, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    y = onehot_to_sphere(tokens, 4).double()
    for w in (None, log_weight):
        expected = effective_sample_size(PRODUCT, Laplace(0.3), x, y, log_weight=w)
        torch.testing.assert_close(
            onehot_effective_sample_size(Laplace(0.3), x, tokens, log_weight=w), expected
        )
    sizes = onehot_effective_sample_size(Laplace(1e5), x, tokens, product=True)
    torch.testing.assert_close(sizes, torch.full((10,), 40.0, dtype=torch.float64), rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.ones(5, 4)}, "expected queries"),
        ({"x": torch.ones(5, 0, 4), "tokens": torch.ones(3, 0).int()}, "L >= 1"),
        ({"tokens": torch.ones(7, 3).int()}, r"got shapes \[5, 4, 3\] and \[7, 3\]"),
        ({"x": torch.ones(5, 4, 3).bfloat16()}, "float32 or float64, got torch.bfloat16"),
        ({"tokens": torch.full((7, 4), 3)}, r"tokens must lie in 0\.\.2, got 3"),
        ({"tokens": torch.full((7, 4), -1)}, r"tokens must lie in 0\.\.2, got -1"),
        ({"tokens": torch.ones(0, 4).int()}, r"at least one reference, got references of shape \[0, 4\]"),
        ({"direction": "sideways"}, "one of gradient, displacement; got 'sideways'"),
        ({"chunk_size": 0}, "at least 1, got 0"),
        ({"log_weight": torch.ones(4)}, r"broadcast to \[n, m\] = \[5, 7\], got shape \[4\]"),
    ],
)
def test_errors_say_what_was_given_and_what_is_accepted(change, message, soft, strings):
    given = {"x": soft(5, 4, 3), "tokens": strings(7, 4, 3), **change}
    with pytest.raises(ValueError, match=message):
        onehot_score(Laplace(0.5), given.pop("x"), given.pop("tokens"), **given)


@pytest.mark.parametrize("product", [False, True])
def test_no_reference_has_no_effective_sample_size(product, soft, strings):
    with pytest.raises(ValueError, match="at least one reference"):
        onehot_effective_sample_size(Laplace(0.5), soft(5, 4, 3), strings(7, 4, 3)[:0], product=product)


@pytest.mark.parametrize("length", [1, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_kernel_of_one_sphere_is_refused_on_sequences(length, dtype, soft, strings):
    x, tokens, kernel = soft(5, length, 3).to(dtype), strings(7, length, 3), SphericalMatern(0.5, 1.5)
    for function in (onehot_score, onehot_log_kernel, onehot_effective_sample_size):
        with pytest.raises(ValueError, match=r"S\^2 in R\^3 alone, got FisherRao\(\) with points of shape"):
            function(kernel, x, tokens)


def test_a_product_kernel_needs_one_of_the_sphere_of_a_position(soft, strings):
    x, y, tokens, counts = soft(5, 2, 3), soft(6, 2, 3), strings(7, 2, 3), torch.ones(9)
    right, wrong = SphericalMatern(0.5, 1.5, dim=2), SphericalMatern(0.5, 1.5, dim=3)
    for function in (
        lambda kernel: onehot_score(kernel, x, tokens, product=True),
        lambda kernel: onehot_log_kernel(kernel, x, tokens, product=True),
        lambda kernel: onehot_effective_sample_size(kernel, x, tokens, product=True),
        lambda kernel: product_scores((kernel,), x, y),
        lambda kernel: kmer_scores((kernel,), x, counts),
        lambda kernel: kmer_effective_sample_size(kernel, x, counts),
    ):
        function(right)
        with pytest.raises(
            ValueError, match=r"S\^3 in R\^4 alone, got Sphere\(\) with points of shape \[3\]"
        ):
            function(wrong)


def test_reduced_precision_matmuls_do_not_reach_the_score(soft, strings):
    x, tokens = soft(20, 8, 5).float(), strings(50, 8, 5)
    exact = onehot_score(Laplace(0.5), x, tokens)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        torch.testing.assert_close(onehot_score(Laplace(0.5), x, tokens), exact, rtol=1e-6, atol=1e-6)
    finally:
        torch.set_float32_matmul_precision(before)


def test_a_whole_training_set_fits_in_a_step():
    """127,000 strings of QM9's size as references of 256 queries: peak memory beyond the tokens."""
    code = """
        import torch
        from pathlib import Path
        from drift_core import Laplace
        from drift_simplex import onehot_score, to_sphere
        def peak():  # in MB; getrusage would start from the peak of the process that started this one
            return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
        x = to_sphere(torch.randn(256, 32, 35).softmax(-1))
        tokens = torch.randint(35, (127_000, 32), dtype=torch.int16)
        onehot_score(Laplace(0.5), x, tokens[:4096])
        before = peak()
        assert onehot_score(Laplace(0.5), x, tokens).gradient.isfinite().all()
        print(peak() - before, peak())
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
    )
    more, most = map(float, result.stdout.split())
    assert more < 100  # MB; one [n, m] array would be 130, the one-hot matrix 569
    assert most < 1024  # the interpreter and torch included
