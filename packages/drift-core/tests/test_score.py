"""The primitive: against float64 autograd, under merging and chunking, and at the edges of float32."""

import math
import subprocess
import sys
import textwrap

import geoopt
import pytest
import torch
from drift_core import (
    Batch,
    Euclidean,
    Gaussian,
    GeooptManifold,
    Hyperboloid,
    KernelField,
    Laplace,
    Manifold,
    Matern,
    Mixture,
    NearestField,
    Power,
    RadialKernel,
    Score,
    Sphere,
    SphericalMatern,
    drift,
    effective_sample_size,
    merge_scores,
    smoothed_score,
    smoothed_scores,
)
from drift_core.fields.nearest import nearest_scores
from drift_core.lengthscale import parse_lengthscales
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

KERNELS = [Laplace(0.3), Gaussian(0.3), Matern(0.3, 2.5), SphericalMatern(0.5, 2.5)]


def autograd_score(kernel: RadialKernel, x: Tensor, y: Tensor) -> Tensor:
    """Riemannian gradient on S^2 of logsumexp_j log k(x, y_j), by autograd in float64."""
    x = torch.nn.functional.normalize(x.double(), dim=-1).requires_grad_()
    y = torch.nn.functional.normalize(y.double(), dim=-1)
    r = 2 * torch.atan2((x[:, None] - y).norm(dim=-1), (x[:, None] + y).norm(dim=-1))
    (gradient,) = torch.autograd.grad(kernel.log(r).logsumexp(1).sum(), x)
    return (gradient - (gradient * x).sum(-1, keepdim=True) * x).detach()


def nudged(x: Tensor, angle: float) -> Tensor:
    """Points at an angle from each x."""
    u = torch.randn(x.shape, generator=torch.Generator().manual_seed(9), dtype=x.dtype)
    u = torch.nn.functional.normalize(u - (u * x).sum(-1, keepdim=True) * x, dim=-1)
    return math.cos(angle) * x + math.sin(angle) * u


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
@pytest.mark.parametrize("clouds", ["random", "near-coincident", "near-antipodal", "both and more"])
def test_float32_field_agrees_with_float64_autograd(kernel, clouds, sphere_cloud):
    x, y = sphere_cloud(300, 0), sphere_cloud(400, 1)
    near, far = nudged(x, 1e-4), -nudged(x, 1e-4)
    y = {"random": y, "near-coincident": near, "near-antipodal": far}.get(clouds, torch.cat([y, near, far]))
    x32, y32 = x.float(), y.float()
    exact = autograd_score(kernel, x32, y32)
    ours = smoothed_score(Sphere(), kernel, x32, y32)
    assert bool(ours.gradient.isfinite().all() and ours.log_density.isfinite().all())
    error = (ours.gradient - exact).norm(dim=-1) / exact.norm(dim=-1)
    assert float((ours.gradient - exact).norm() / exact.norm()) < 1e-4
    assert float(error.quantile(0.99)) < 1e-3


@pytest.mark.parametrize("pair", ["coincident", "antipodal"])
@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_exact_coincidences_give_finite_fields(kernel, pair, sphere_cloud):
    x = sphere_cloud(50, 0, torch.float32)
    y = x if pair == "coincident" else -x
    for direction in ("gradient", "displacement"):
        alone = smoothed_score(Sphere(), kernel, x[:1], y[:1], direction=direction)
        assert float(alone.gradient.abs().max()) < 1e-6
        together = smoothed_score(Sphere(), kernel, x, y, direction=direction)
        assert bool(together.gradient.isfinite().all() and together.log_density.isfinite().all())


def test_arccos_distances_would_ruin_the_field(sphere_cloud):
    x = sphere_cloud(100, 0).float()
    y = nudged(sphere_cloud(100, 0), 1e-4).float()
    exact = autograd_score(Laplace(0.3), x, y)
    z = x.clone().requires_grad_()
    r = torch.arccos((z @ y.T).clamp(-1 + 1e-7, 1 - 1e-7))
    (naive,) = torch.autograd.grad(Laplace(0.3).log(r).logsumexp(1).sum(), z)
    assert not float((naive - exact).norm() / exact.norm()) < 0.1


@pytest.mark.parametrize("direction", ["gradient", "displacement"])
@pytest.mark.parametrize("chunk_size", [1, 7, 64])
def test_chunks_give_the_same_score(manifold: Manifold, cloud, direction, chunk_size):
    x, y = cloud(9, 0), cloud(64, 1)
    log_weight = torch.randn(9, 64, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    kw = {"direction": direction, "log_weight": log_weight}
    whole = smoothed_score(manifold, Laplace(0.5), x, y, **kw)
    parts = smoothed_score(manifold, Laplace(0.5), x, y, chunk_size=chunk_size, **kw)
    torch.testing.assert_close(parts, whole, rtol=1e-10, atol=1e-10)


def test_scores_of_shards_merge_in_any_order(manifold: Manifold, cloud):
    x, y = cloud(6, 0), cloud(30, 1)
    shards = [smoothed_score(manifold, Gaussian(0.6), x, part) for part in y.split([1, 17, 12])]
    whole = smoothed_score(manifold, Gaussian(0.6), x, y)
    torch.testing.assert_close(merge_scores(*shards), whole, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(merge_scores(*reversed(shards)), whole, rtol=1e-10, atol=1e-12)
    nested = merge_scores(merge_scores(shards[0], shards[1]), shards[2])
    torch.testing.assert_close(nested, whole, rtol=1e-10, atol=1e-12)


def test_log_weights_are_weights(sphere_cloud):
    x, y = sphere_cloud(5, 0), sphere_cloud(8, 1)
    counts = torch.tensor([1, 2, 3, 1, 1, 1, 1, 1])
    repeated = smoothed_score(Sphere(), Laplace(0.5), x, y.repeat_interleave(counts, 0))
    weighted = smoothed_score(Sphere(), Laplace(0.5), x, y, log_weight=counts.double().log())
    torch.testing.assert_close(weighted, repeated)


def test_excluding_every_reference_gives_a_zero_score(sphere_cloud):
    x, y = sphere_cloud(3, 0), sphere_cloud(4, 1)
    log_weight = torch.zeros(3, 4, dtype=torch.float64)
    log_weight[1] = -torch.inf
    score = smoothed_score(Sphere(), Laplace(0.5), x, y, log_weight=log_weight, chunk_size=2)
    assert score.log_density[1] == -torch.inf
    assert bool((score.gradient[1] == 0).all())
    assert bool((score.gradient[0] != 0).all())


def test_queries_are_excluded_by_their_index_in_a_pool(sphere_cloud):
    pool = sphere_cloud(20, 0)
    index = torch.tensor([3, 19, 7, 25])
    score = smoothed_score(Sphere(), Laplace(0.5), pool[index % 20], pool, self_index=index, chunk_size=6)
    for row, i in enumerate(index.tolist()):
        others = pool if i >= 20 else torch.cat([pool[:i], pool[i + 1 :]])
        alone = smoothed_score(Sphere(), Laplace(0.5), pool[[i % 20]], others)
        torch.testing.assert_close(score.gradient[row], alone.gradient[0])


def test_underflowing_rows_follow_their_nearest_reference(sphere_cloud):
    x = torch.tensor([[1.0, 0, 0]])
    y = torch.nn.functional.normalize(torch.tensor([[0.0, 1, 0], [-1.0, 0.5, 0.1], [0.5, 0.8, 0]]), dim=-1)
    kernel = Laplace(1e-3)
    assert bool((kernel.log(Sphere().cdist(x, y)).exp() == 0).all())  # 0/0 for a plain weighted mean
    score = smoothed_score(Sphere(), kernel, x, y)
    towards = Sphere().logmap(x, y[2:])
    torch.testing.assert_close(score.gradient, towards / towards.norm() / 1e-3, rtol=1e-5, atol=1e-2)


@pytest.mark.parametrize("ratio", [1e3, 1e6])
@pytest.mark.parametrize("kernel", [Laplace, Gaussian, lambda scale: Matern(scale, 10.5)])
def test_tiny_lengthscales_stay_finite(kernel, ratio, sphere_cloud):
    x, y = sphere_cloud(20, 0, torch.float32), sphere_cloud(30, 1, torch.float32)
    score = smoothed_score(Sphere(), kernel(1 / ratio), x, y)
    assert bool(score.gradient.isfinite().all() and score.log_density.isfinite().all())


@pytest.mark.parametrize("name", ["x", "y"])
def test_scores_are_differentiable(name, sphere_cloud):
    clouds = {"x": sphere_cloud(4, 0), "y": sphere_cloud(5, 1)}

    def f(t: Tensor) -> Tensor:
        at = {**clouds, name: t}
        return smoothed_score(Sphere(), Gaussian(0.5), at["x"], at["y"]).gradient

    assert torch.autograd.gradcheck(f, clouds[name].requires_grad_(), atol=1e-6)


def test_effective_sample_size_lies_between_one_and_all(sphere_cloud):
    x, y = sphere_cloud(10, 0), sphere_cloud(40, 1)
    assert float(effective_sample_size(Sphere(), Laplace(1e-4), x, y).max()) < 1.0001
    assert float(effective_sample_size(Sphere(), Laplace(1e5), x, y).min()) > 39.99
    weights = smoothed_weights(x, y)
    by_hand = weights.sum(1).square() / weights.square().sum(1)
    torch.testing.assert_close(effective_sample_size(Sphere(), Laplace(0.3), x, y), by_hand)


def test_effective_sample_size_refuses_what_smoothed_score_refuses():
    x = torch.nn.functional.normalize(torch.randn(5, 3), dim=-1)
    for y, message in (
        (x[:0], r"at least one reference, got references of shape \[0, 3\]"),
        (x[:, :2], r"got \[5, 3\] and \[5, 2\]"),
        (x.double(), "got torch.float32 and torch.float64"),
    ):
        with pytest.raises(ValueError, match=message):
            effective_sample_size(Sphere(), Laplace(0.3), x, y)
    for manifold in (Sphere(), GeooptManifold(geoopt.Sphere())):
        assert effective_sample_size(manifold, Laplace(0.3), x[:0], x).shape == (0,)


def smoothed_weights(x: Tensor, y: Tensor) -> Tensor:
    return (-Sphere().cdist(x, y) / 0.3).exp()


def test_memory_does_not_grow_with_the_number_of_references():
    """Peak memory beyond the points themselves at 10,000 and at 1,000,000 references, n = 1,024."""
    code = """
        import resource, torch
        from drift_core import Laplace, Sphere, smoothed_score
        def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        g = torch.Generator().manual_seed(0)
        draw = lambda n: torch.nn.functional.normalize(torch.randn(n, 3, generator=g), dim=-1)
        x, few, many = draw(1024), draw(10_000), draw(1_000_000)
        smoothed_score(Sphere(), Laplace(0.2), x, few)
        before = peak()
        assert smoothed_score(Sphere(), Laplace(0.2), x, many).gradient.isfinite().all()
        print(peak() - before)
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
    )
    assert float(result.stdout) < 50  # MB; one [n, m] array would be 3,906


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.ones(3)}, "expected clouds"),
        ({"y": torch.ones(4, 2)}, r"got \[5, 3\] and \[4, 2\]"),
        ({"y": torch.ones(0, 3)}, r"at least one reference, got references of shape \[0, 3\]"),
        ({"direction": "sideways"}, "one of gradient, displacement; got 'sideways'"),
        ({"chunk_size": 0}, "at least 1, got 0"),
        ({"log_weight": torch.ones(4)}, r"broadcast to \[n, m\] = \[5, 7\], got shape \[4\]"),
    ],
)
def test_errors_say_what_was_given_and_what_is_accepted(change, message, sphere_cloud):
    given = {"x": sphere_cloud(5, 0, torch.float32), "y": sphere_cloud(7, 1, torch.float32), **change}
    with pytest.raises(ValueError, match=message):
        smoothed_score(Sphere(), Laplace(0.5), given.pop("x"), given.pop("y"), **given)


ELSEWHERE = [
    (Euclidean(), (3,)),
    (Hyperboloid(), (3,)),
    (Sphere(), (2,)),
    (Sphere(), (4,)),
    (Power(Sphere()), (1, 3)),
    (Power(Sphere()), (5, 3)),
    (GeooptManifold(geoopt.Euclidean(ndim=1)), (3,)),
    (GeooptManifold(geoopt.Sphere()), (4,)),
    (GeooptManifold(geoopt.Scaled(geoopt.Sphere(), 2.0)), (3,)),
    (GeooptManifold(geoopt.Sphere(intersection=torch.eye(3, dtype=torch.float64)[:, :2])), (3,)),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "kernel", [SphericalMatern(0.5, 1.5), Mixture((Laplace(1), SphericalMatern(1, 2.5)), (1, 2))]
)
@pytest.mark.parametrize(("manifold", "shape"), ELSEWHERE, ids=repr)
def test_a_kernel_of_a_sphere_is_refused_elsewhere(manifold, shape, kernel, dtype):
    x = torch.zeros(6, *shape, dtype=dtype)
    x[..., 0] = 1
    field = KernelField(manifold, lambda _: kernel, parse_lengthscales("1"))
    for refuses in (
        lambda: smoothed_score(manifold, kernel, x, x),
        lambda: smoothed_scores(manifold, (Laplace(1.0), kernel), x[:0], x),
        lambda: drift(manifold, kernel, x, x),
        lambda: effective_sample_size(manifold, kernel, x, x),
        lambda: nearest_scores(manifold, [kernel], x, x[:, None]),
        lambda: field(Batch(x, x)),
        lambda: field.log_kernel(x, x),
        lambda: NearestField(field, x).tail_mass(1.0),
    ):
        with pytest.raises(ValueError, match=r"defined on the unit sphere S\^2 in R\^3 alone, got ") as error:
            refuses()
        assert repr(kernel) in str(error.value)
        assert f"{manifold!r} with points of shape {list(shape)}" in str(error.value)


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_a_kernel_of_a_sphere_is_accepted_on_any_form_of_it(dim):
    x = torch.nn.functional.normalize(torch.randn(2, 9, dim + 1, dtype=torch.float64), dim=-1)
    kernel = Mixture((SphericalMatern(0.5, 1.5, dim=dim), Gaussian(1.0)), (0.5, 0.5))
    own = smoothed_score(Sphere(), kernel, *x)
    other = smoothed_score(GeooptManifold(geoopt.Sphere()), kernel, *x)
    torch.testing.assert_close(other.log_density, own.log_density, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(other.gradient, own.gradient, rtol=1e-5, atol=1e-5)


def test_merging_needs_scores_of_one_kind():
    with pytest.raises(ValueError, match="at least one"):
        merge_scores()
    with pytest.raises(ValueError, match="same queries"):
        merge_scores(Score(torch.ones(2), torch.ones(2, 3)), Score(torch.ones(3), torch.ones(3, 3)))


def test_no_queries_give_an_empty_score():
    score = smoothed_score(Power(Sphere()), Laplace(0.5), torch.ones(0, 2, 3), torch.ones(4, 2, 3))
    assert score.log_density.shape == (0,)
    assert score.gradient.shape == (0, 2, 3)


@pytest.mark.parametrize("direction", ["gradient", "displacement"])
def test_several_kernels_share_a_pass(manifold: Manifold, cloud, direction):
    x, y, kernels = cloud(7, 0), cloud(40, 1), [Laplace(0.2), Gaussian(1.0), Matern(0.5, 1.5)]
    together = smoothed_scores(manifold, kernels, x, y, direction=direction, chunk_size=16)
    for kernel, score in zip(kernels, together, strict=True):
        torch.testing.assert_close(score, smoothed_score(manifold, kernel, x, y, direction=direction))
    assert smoothed_scores(manifold, kernels, x[:0], y)[2].gradient.shape == x[:0].shape


@pytest.mark.parametrize("d", [3, 40])
@pytest.mark.parametrize("space", [Sphere(), Euclidean()], ids=repr)
def test_reduced_precision_matmuls_do_not_reach_the_field(space, d):
    """TF32 and bfloat16 products, which a user may allow for the network, would ruin small distances."""
    generator = torch.Generator().manual_seed(0)
    x, y = (space.projx(torch.randn(64, d, generator=generator)) for _ in range(2))
    exact = smoothed_score(space, Laplace(0.5), x, y)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        torch.testing.assert_close(smoothed_score(space, Laplace(0.5), x, y), exact, rtol=1e-6, atol=1e-6)
    finally:
        torch.set_float32_matmul_precision(before)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.integers(1, 12), min_size=1, max_size=5), st.floats(0.01, 10))
def test_any_shards_merge_to_the_whole(seed, sizes, scale):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda n: torch.nn.functional.normalize(torch.randn(n, 3, generator=generator).double(), dim=-1)  # noqa: E731
    x, y = draw(4), draw(sum(sizes))
    log_weight = torch.randn(sum(sizes), generator=generator).double()
    parts = zip(y.split(sizes), log_weight.split(sizes), strict=True)
    scores = [smoothed_score(Sphere(), Laplace(scale), x, part, log_weight=w) for part, w in parts]
    whole = smoothed_score(Sphere(), Laplace(scale), x, y, log_weight=log_weight)
    torch.testing.assert_close(merge_scores(*scores), whole, rtol=1e-9, atol=1e-9)
