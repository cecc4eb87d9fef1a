"""Fused loops equal the torch form in float64, on every geometry, kernel, direction and weighting."""

import math
import os
import platform
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from drift_core import (
    Euclidean,
    Gaussian,
    Hyperboloid,
    Laplace,
    Matern,
    Mixture,
    Power,
    RadialKernel,
    Score,
    Sphere,
    SphericalMatern,
    effective_sample_size,
    smoothed_log_densities,
    smoothed_log_density,
    smoothed_score,
    smoothed_scores,
)
from drift_core.engine import build, disabled, fused, tables, tree
from drift_core.engine.profile import Form, profile_of
from drift_core.fields.nearest import nearest_scores
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

SPACES = {
    **{f"R^{d}": (Euclidean(), d) for d in (1, 2, 3, 4, 5, 17, 64, 100)},
    **{f"S^{d - 1}": (Sphere(), d) for d in (2, 3, 4, 5, 17, 64)},
    **{f"H^{d - 1}": (Hyperboloid(), d) for d in (2, 3, 5)},
}


class RationalQuadratic(RadialKernel):
    """A user's kernel, 1 / (1 + r^2 / l^2), which is no frozen dataclass."""

    def __init__(self, lengthscale: float) -> None:
        self.lengthscale = lengthscale

    def log(self, r):
        return -torch.log1p((r / self.lengthscale) ** 2)

    def dlog(self, r):
        return -2 * r / (self.lengthscale**2 + r**2)


KERNELS = {
    "gaussian": Gaussian,
    "laplace": Laplace,
    "matern-3/2": lambda scale: Matern(scale, 1.5),
    "matern-5/2": lambda scale: Matern(scale, 2.5),
    "matern-9/2": lambda scale: Matern(scale, 4.5),
    "matern-0.8": lambda scale: Matern(scale, 0.8),
    "mixture": lambda scale: Mixture((Laplace(scale), Gaussian(2 * scale)), (0.3, 2.0)),
    "user": RationalQuadratic,
}
SPECTRAL = {
    "heat": lambda dim: SphericalMatern(0.3, math.inf, dim=dim),
    "spectral-1/2": lambda dim: SphericalMatern(0.3, 0.5, dim=dim),
    "spectral-5/2": lambda dim: SphericalMatern(0.3, 2.5, dim=dim),
}
LIMIT = 2e-5
"""Largest relative error of a field (DESIGN, numerics)."""


@pytest.fixture(autouse=True)
def _engine() -> None:
    if build.compiled() is None:
        pytest.skip("there is no C compiler")


def cloud(space: str, n: int, seed: int) -> Tensor:
    manifold, d = SPACES[space]
    noise = torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
    return manifold.projx(noise)


def clusters(space: str, spread: float) -> tuple[Tensor, Tensor]:
    """Queries and references in four clusters, nearer to one another than `spread`."""
    manifold, _ = SPACES[space]
    centres = cloud(space, 4, 5)
    x, y = (centres.repeat(n, 1) + spread * cloud(space, 4 * n, n) for n in (8, 70))
    return manifold.projx(x), manifold.projx(y)


def check(manifold, kernels, x, y, limit=LIMIT, **request):
    """Compare with the torch form in float64: log-densities, and gradients by the norm over all queries."""
    direction = request.get("direction", "gradient")
    given = {"displacement": direction == "displacement"}
    assert fused(manifold, kernels, x, y, **given) is not None
    scores = smoothed_scores(manifold, kernels, x, y, **request)
    double = {
        k: v.double() if torch.is_tensor(v) and v.is_floating_point() else v for k, v in request.items()
    }
    with disabled():
        expected = smoothed_scores(manifold, kernels, *(manifold.projx(t.double()) for t in (x, y)), **double)
    for score, oracle in zip(scores, expected, strict=True):
        gap = (score.gradient.double() - oracle.gradient).norm(dim=1)
        size = oracle.gradient.norm(dim=1)
        assert gap.norm() <= limit * size.norm(), f"{float(gap.norm() / size.norm()):.1e}"
        torch.testing.assert_close(score.log_density.double(), oracle.log_density, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("direction", ["gradient", "displacement"])
@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("space", SPACES)
def test_random_clouds(space, name, direction):
    manifold, d = SPACES[space]
    kernel = KERNELS[name](0.4 * math.sqrt(d))
    check(manifold, [kernel], cloud(space, 37, 0), cloud(space, 611, 1), direction=direction)


@pytest.mark.parametrize("spread", [1e-2, 1e-5])
@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("space", SPACES)
def test_near_coincident_clouds(space, name, spread):
    manifold = SPACES[space][0]
    check(manifold, [KERNELS[name](0.5 * spread), KERNELS[name](1.0)], *clusters(space, spread))


@pytest.mark.parametrize("spread", [1e-1, 1e-3])
@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("space", [s for s in SPACES if s.startswith("S")])
def test_near_antipodal_clouds(space, name, spread):
    x, y = clusters(space, spread)
    check(Sphere(), [KERNELS[name](0.3)], x[:4], -y[:4], 1e-4 if name == "user" else LIMIT)


def cancelling(case: str, d: int) -> tuple[Sphere | Euclidean, Tensor, Tensor]:
    """Clouds in which the products of many or all pairs cancel, less a common centre or not."""
    x, y, centre = (torch.randn(n, d, generator=torch.Generator().manual_seed(n)) for n in (23, 580, 1))
    match case:
        case "offset":
            return Euclidean(), 1e3 + x, 1e3 + y
        case "outliers":
            y[::20] *= 1e3
            return Euclidean(), x, y
        case "offset clusters":
            return Euclidean(), 1e3 + 1e-2 * x, 1e3 * torch.sign(y[:, :1]) + 1e-2 * y
        case "cone":
            return Sphere(), Sphere().projx(centre + 0.1 * x), Sphere().projx(centre + 0.1 * y)
        case _:
            poles = (centre + 1e-3 * y) * torch.sign(y[:, :1])
            return Sphere(), Sphere().projx(centre + 1e-3 * x), Sphere().projx(poles)


@pytest.mark.parametrize("direction", ["gradient", "displacement"])
@pytest.mark.parametrize("d", [5, 17, 70])
@pytest.mark.parametrize("case", ["offset", "outliers", "offset clusters", "cone", "poles"])
def test_clouds_whose_products_cancel(case, d, direction):
    manifold, x, y = cancelling(case, d)
    scale = float(manifold.cdist(x.double(), y.double()).median())
    kernels = [Laplace(scale), Laplace(0.1 * scale), Matern(scale, 1.5)]
    check(manifold, kernels, x, y, direction=direction)


@pytest.mark.parametrize("radius", [5.0, 20.0, 40.0, 60.0])
@pytest.mark.parametrize("space", ["H^1", "H^2", "H^4"])
def test_far_points_of_a_hyperboloid(space, radius):
    """Distances from the origin of points at a radius, and between two such points, are known."""
    manifold, d = SPACES[space]
    origin = torch.eye(d)[:1]
    point = torch.zeros(1, d, dtype=torch.float64)
    point[0, :2] = torch.tensor([math.cosh(radius), math.sinh(radius)])
    opposite = point * torch.tensor([1.0, -1.0] + [1.0] * (d - 2))
    point, opposite = point.float(), opposite.float()
    for x, y, r in ((origin, point, radius), (point, origin, radius), (point, opposite, 2 * radius)):
        if r < 85:  # the square of the sinh of half of it is a float32 number
            score = smoothed_score(manifold, Laplace(10.0), x, y)
            torch.testing.assert_close(score.log_density, torch.tensor([-r / 10]), rtol=1e-6, atol=1e-6)
    towards = smoothed_score(manifold, Laplace(10.0), origin, point).gradient
    torch.testing.assert_close(towards, 0.1 * torch.eye(d)[1:2], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("direction", ["gradient", "displacement"])
@pytest.mark.parametrize("spread", [2.0, 1e-2])
@pytest.mark.parametrize("name", SPECTRAL)
@pytest.mark.parametrize("space", ["S^1", "S^2", "S^4"])
def test_kernels_of_a_sphere(space, name, spread, direction):
    kernel = SPECTRAL[name](SPACES[space][1] - 1)
    x, y = clusters(space, spread)
    check(Sphere(), [kernel], x, y, direction=direction)
    check(Sphere(), [kernel], x[:4], -y[:4], direction=direction)


@pytest.mark.parametrize("spread", [1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize("name", SPECTRAL)
@pytest.mark.parametrize("space", ["S^1", "S^2", "S^4"])
def test_kernels_of_a_sphere_near_the_antipode_alone(space, name, spread):
    """Their slope vanishes there, and no other reference hides what pi - r has lost."""
    kernel = SPECTRAL[name](SPACES[space][1] - 1)
    x, y = clusters(space, spread)
    for i in range(4):
        check(Sphere(), [kernel], x[i : i + 1], -y[i : i + 1])


WEIGHTS = {
    "references": lambda n, m, g: torch.randn(m, generator=g),
    "queries": lambda n, m, g: torch.randn(n, 1, generator=g),
    "pairs": lambda n, m, g: torch.randn(n, m, generator=g),
    "transposed": lambda n, m, g: torch.randn(m, n, generator=g).T,
    "excluded": lambda n, m, g: torch.randn(n, m, generator=g).masked_fill(
        torch.rand(n, m, generator=g) < 0.7, -math.inf
    ),
    "problems": lambda n, m, g: torch.randn(n, m, generator=g).masked_fill(
        torch.arange(n)[:, None] * 7 // n != torch.arange(m) * 8 // m, -math.inf
    ),
}
"""The last are of drift problems side by side, runs of samples and of references, one without samples."""


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("space", ["R^2", "R^17", "S^2", "S^16", "H^2"])
def test_log_weights_and_self_exclusion(space, weights, own):
    x, y = cloud(space, 37, 0), cloud(space, 300, 1)
    log_weight = WEIGHTS[weights](len(x), len(y), torch.Generator().manual_seed(3))
    index = torch.arange(290, 290 + len(x)) if own else None  # some outside 0..299: nothing is excluded
    check(SPACES[space][0], [Laplace(0.5)], x, y, log_weight=log_weight, self_index=index)


@pytest.mark.parametrize("space", SPACES)
def test_rows_without_references_have_no_density_and_no_gradient(space):
    x, y = cloud(space, 5, 0), cloud(space, 40, 1)
    weights = torch.zeros(5, 40)
    weights[2] = -math.inf
    score = smoothed_score(SPACES[space][0], Laplace(0.5), x, y, log_weight=weights)
    assert score.log_density[2] == -math.inf
    assert not score.gradient[2].any()
    assert score.gradient[[0, 1, 3, 4]].any(1).all()


@pytest.mark.parametrize("name", [n for n in KERNELS if n != "user"])
@pytest.mark.parametrize("space", ["R^3", "R^64", "S^2", "H^2"])
def test_rows_whose_weights_underflow_follow_their_nearest_reference(space, name):
    manifold = SPACES[space][0]
    x, y = cloud(space, 20, 0), cloud(space, 9, 1)
    gaps = manifold.cdist(x, y).sort(1).values
    assert ((gaps[:, 1] - gaps[:, 0]) > 2e-3).all()
    score = smoothed_score(manifold, KERNELS[name](1e-4), x, y, direction="displacement")
    nearest = manifold.cdist(x, y).argmin(1)
    torch.testing.assert_close(score.gradient, manifold.logmap(x, y[nearest]))


@pytest.mark.parametrize("space", SPACES)
def test_coincident_and_antipodal_pairs_have_no_direction(space):
    manifold = SPACES[space][0]
    x = cloud(space, 6, 0)
    score = smoothed_score(manifold, Laplace(0.5), x, x[:1])
    assert score.log_density[0] > -1e-6
    assert score.gradient[0].norm() < 1e-6
    if isinstance(manifold, Sphere):
        score = smoothed_score(manifold, Laplace(0.5), x[:1], -x[:1])
        torch.testing.assert_close(score.log_density, torch.tensor([-math.pi / 0.5]))
        assert not score.gradient.any()


@pytest.mark.parametrize("space", ["R^2", "R^17", "S^2", "S^16", "H^2"])
def test_a_query_depends_on_nothing_but_the_references(space):
    """Not on the other queries, the number of threads, or the kernels that share the pass: to the bit."""
    check_alone(space)


def check_alone(space):
    manifold = SPACES[space][0]
    x, y = cloud(space, 101, 0), cloud(space, 999, 1)
    kernels = [Laplace(0.3), Gaussian(0.4), Matern(0.5, 1.5), Matern(0.5, 0.8)]
    together = smoothed_scores(manifold, kernels, x, y)
    threads = torch.get_num_threads()
    try:
        for count in (1, 5):
            torch.set_num_threads(count)
            rows = [0, 50, 100]
            for kernel, score in zip(kernels, together, strict=True):
                alone = smoothed_score(manifold, kernel, x[rows], y)
                assert torch.equal(alone.gradient, score.gradient[rows])
                assert torch.equal(alone.log_density, score.log_density[rows])
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("space", SPACES)
def test_a_nan_reaches_every_query(space):
    x, y = cloud(space, 4, 0), cloud(space, 300, 1)
    y[7] = math.nan
    for kernel in (Laplace(0.5), Gaussian(0.5), Matern(0.5, 2.5), Matern(0.5, 0.8)):
        score = smoothed_score(SPACES[space][0], kernel, x, y)
        assert score.log_density.isnan().all()
        assert score.gradient.isnan().any(1).all()


@pytest.mark.parametrize("direction", ["gradient", "displacement"])
@pytest.mark.parametrize("space", ["R^2", "R^17", "S^2", "S^16", "H^2"])
def test_separate_references_of_every_query(space, direction):
    manifold = SPACES[space][0]
    x, y = cloud(space, 21, 0), cloud(space, 21 * 300, 1).unflatten(0, (21, 300))
    kernels = [Laplace(0.4), Matern(0.4, 1.5)]
    assert fused(manifold, kernels, x, y) is not None
    scores = nearest_scores(manifold, kernels, x, y, direction=direction)
    for i, own in enumerate(y):
        for score, kernel in zip(scores, kernels, strict=True):
            alone = smoothed_score(manifold, kernel, x[i : i + 1], own, direction=direction)
            assert torch.equal(score.gradient[i], alone.gradient[0])


@pytest.mark.parametrize("space", ["R^2", "R^17", "S^2", "S^16", "H^2"])
def test_log_densities_and_effective_sample_sizes(space):
    manifold = SPACES[space][0]
    x, y = cloud(space, 30, 0), cloud(space, 400, 1)
    weights = torch.randn(400, generator=torch.Generator().manual_seed(2))
    kernels = Laplace(0.5), Matern(0.5, 0.8)
    together = smoothed_log_densities(manifold, kernels, x, y, log_weight=weights)
    for kernel, one in zip(kernels, together, strict=True):
        density = smoothed_log_density(manifold, kernel, x, y, log_weight=weights)
        size = effective_sample_size(manifold, kernel, x, y, log_weight=weights)
        assert torch.equal(density, one)
        assert torch.equal(density, smoothed_score(manifold, kernel, x, y, log_weight=weights).log_density)
        with disabled():
            double = (x.double(), y.double())
            expected = smoothed_log_density(manifold, kernel, *double, log_weight=weights.double())
            sizes = effective_sample_size(manifold, kernel, *double, log_weight=weights.double())
        torch.testing.assert_close(density.double(), expected, rtol=2e-6, atol=2e-6)
        torch.testing.assert_close(size.double(), sizes, rtol=1e-5, atol=0)


def points(shape: tuple[int, ...], seed: int, *, orthant: bool = False) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return Sphere().projx(x.abs() if orthant else x)


def check_product(x, y, kernels, *, product, **request):
    """Compare a power of the sphere with the torch form in float64."""
    manifold = Power(Sphere())
    displacement = request.pop("direction", "gradient") == "displacement"
    result = fused(manifold, kernels, x, y, product=product, displacement=displacement, **request)
    direction = "displacement" if displacement else "gradient"
    double = {k: v.double() if v.is_floating_point() else v for k, v in request.items()}
    with disabled():
        score = _product_scores if product else partial(smoothed_scores, manifold)
        at, of = (Sphere().projx(t.double()) for t in (x, y))
        expected = score(kernels, at, of, direction=direction, **double)
    for log_density, gradient, oracle in zip(result.log_density, result.gradient, expected, strict=True):
        gap = (gradient.double() - oracle.gradient).norm() / oracle.gradient.norm()
        assert gap <= LIMIT, f"{float(gap):.1e}"
        torch.testing.assert_close(log_density.double(), oracle.log_density, rtol=1e-6, atol=1e-5)


def _product_scores(kernels, x, y, *, direction, log_weight=None, self_index=None):
    """The product kernel by its definition: log-densities, and their gradients by autograd."""
    scores = []
    for kernel in kernels:
        at = x.clone().requires_grad_()
        theta = torch.stack([Sphere().cdist(a, b) for a, b in zip(at.unbind(1), y.unbind(1), strict=True)])
        logits = kernel.log(theta).sum(0) + (0 if log_weight is None else log_weight)
        if self_index is not None:
            logits = logits.scatter(1, self_index[:, None], -math.inf)
        density = logits.logsumexp(1)
        if direction == "gradient":
            (slope,) = torch.autograd.grad(density.sum(), at)
            gradient = Sphere().proju(x, slope)
        else:
            gradient = torch.einsum("nm,nmld->nld", logits.softmax(1), Sphere().logmap(x[:, None], y))
        scores.append(Score(density.detach(), gradient.detach()))
    return scores


@pytest.mark.parametrize("orthant", [True, False])
@pytest.mark.parametrize("product", [True, False])
@pytest.mark.parametrize("direction", ["gradient", "displacement"])
@pytest.mark.parametrize("shape", [(1, 4), (6, 2), (5, 3), (7, 4), (3, 20), (2, 64), (70, 4)])
def test_products_of_spheres(shape, direction, product, orthant):
    x, y = points((11, *shape), 0, orthant=orthant), points((290, *shape), 1, orthant=orthant)
    scale = 1 if product else shape[0] ** 0.5
    kernels = [Laplace(scale), Gaussian(scale), Matern(scale, 1.5), Matern(scale, 0.8)]
    check_product(x, y, kernels, product=product, direction=direction)


@pytest.mark.parametrize("product", [True, False])
@pytest.mark.parametrize("spread", [1e-1, 1e-4])
def test_near_coincident_products(spread, product):
    y = Sphere().projx(points((4, 5, 4), 0).repeat(40, 1, 1) + spread * points((160, 5, 4), 1))
    x = Sphere().projx(y[:9] + spread * points((9, 5, 4), 2))
    check_product(x, y, [Laplace(0.5 * spread), Matern(1.0, 2.5)], product=product)


@pytest.mark.parametrize("spread", [1e-1, 1e-4])
@pytest.mark.parametrize("name", SPECTRAL)
def test_near_antipodal_products_of_kernels_of_a_sphere(name, spread):
    y = points((4, 5, 3), 0)
    x = Sphere().projx(y + spread * points((4, 5, 3), 1))
    for i in range(4):
        check_product(x[i : i + 1], -y[i : i + 1], [SPECTRAL[name](2)], product=True)


@pytest.mark.parametrize("product", [True, False])
@pytest.mark.parametrize("excluded", ["excluded", "problems"])
def test_weights_and_self_exclusion_of_products(product, excluded):
    x, y = points((13, 6, 4), 0), points((300, 6, 4), 1)
    weights = WEIGHTS[excluded](13, 300, torch.Generator().manual_seed(3))
    own = torch.arange(280, 293)
    check_product(x, y, [Laplace(1.0)], product=product, log_weight=weights, self_index=own)
    nothing = fused(
        Power(Sphere()), [Laplace(1.0)], x, y, log_weight=torch.full((13, 300), -math.inf), product=product
    )
    assert (nothing.log_density == -math.inf).all()
    assert not nothing.gradient.any()


@pytest.mark.parametrize("product", [True, False])
def test_a_query_of_a_product_depends_on_nothing_but_the_references(product):
    x, y = points((21, 6, 4), 0), points((300, 6, 4), 1)
    kernels = [Laplace(1.0), Matern(1.0, 0.8)]
    together = fused(Power(Sphere()), kernels, x, y, product=product)
    for i in (0, 8, 20):
        alone = fused(Power(Sphere()), kernels, x[i : i + 1], y, product=product)
        assert torch.equal(alone.gradient[:, 0], together.gradient[:, i])
        assert torch.equal(alone.log_density[:, 0], together.log_density[:, i])


def test_powers_of_flat_space_are_flat_space():
    x, y = (torch.randn(n, 5, 3, generator=torch.Generator().manual_seed(n)) for n in (9, 40))
    manifold, kernel = Power(Euclidean()), Laplace(1.0)
    score = smoothed_score(manifold, kernel, x, y)
    with disabled():
        expected = smoothed_score(manifold, kernel, x.double(), y.double())
    torch.testing.assert_close(score.gradient.double(), expected.gradient, rtol=1e-5, atol=1e-6)
    near = nearest_scores(manifold, [kernel], x, y.expand(9, *y.shape))[0]
    torch.testing.assert_close(near.gradient, score.gradient)


@given(
    space=st.sampled_from(list(SPACES)),
    name=st.sampled_from(list(KERNELS)),
    n=st.integers(1, 40),
    m=st.integers(1, 600),
    scale=st.floats(-2, 1),
    seed=st.integers(0, 2**31),
    displacement=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_any_case(space, name, n, m, scale, seed, displacement):
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(n, m, generator=generator).masked_fill(
        torch.rand(n, m, generator=generator) < 0.3, -math.inf
    )
    direction = "displacement" if displacement else "gradient"
    x, y = cloud(space, n, seed), cloud(space, m, seed + 1)
    manifold, d = SPACES[space]
    kernel = KERNELS[name](10**scale * math.sqrt(d))
    check(manifold, [kernel], x, y, 1e-4, direction=direction, log_weight=weights)


def test_what_has_no_fused_loop_is_computed_by_torch():
    x, y = cloud("S^2", 4, 0), cloud("S^2", 9, 1)

    class Compact(RadialKernel):
        def log(self, r):
            return torch.log((1 - r).clamp(min=0))

        def dlog(self, r):
            return -1 / (1 - r)

    assert fused(Sphere(), [Laplace(0.5)], x, y) is not None
    assert fused(Sphere(), [Laplace(0.5)], x.double(), y.double()) is None
    assert fused(Sphere(), [Laplace(0.5)], x.clone().requires_grad_(), y) is None
    assert fused(Sphere(), [Laplace(0.5), Compact()], x, y) is None
    with torch.no_grad():
        assert fused(Sphere(), [Laplace(0.5)], x.clone().requires_grad_(), y) is not None
    with disabled():
        assert fused(Sphere(), [Laplace(0.5)], x, y) is None


def test_a_kernel_that_changes_is_tabulated_anew():
    x, y = cloud("R^2", 4, 0), cloud("R^2", 9, 1)
    kernel = RationalQuadratic(0.5)
    smoothed_score(Euclidean(), kernel, x, y)
    kernel.lengthscale = 2.0
    check(Euclidean(), [kernel], x, y)


@pytest.mark.parametrize(
    ("kernel", "form"),
    [
        (Laplace(0.5), Form.LAPLACE),
        (Matern(0.5, 0.5), Form.LAPLACE),
        (Matern(0.5, math.inf), Form.GAUSSIAN),
        (Matern(0.5, 3.5), Form.HALF_INTEGER),
        (Matern(0.5, 0.7), Form.TABLE),
        (SphericalMatern(0.05, math.inf), Form.FOLDED_TABLE),
    ],
)
def test_forms_of_kernels(kernel, form):
    profile = profile_of(kernel)
    assert profile is not None
    assert profile.form == form


def read(profile, v, far):
    """log k and its slope from a table at float32 numbers v, from the other pole where `far`."""
    shift, half = profile.shift, len(profile.pieces) // 2
    bits = v.view(torch.int32)
    cell = (bits >> shift) - profile.first + far * half
    width = 2.0 ** ((bits >> 23) - 127 - (23 - shift)).double() * (1 - 2 * far.double())
    t = (bits & ((1 << shift) - 1)).double() / 2**shift
    log, *quadratic = profile.pieces.double()[cell].T
    powers = t[:, None] ** torch.arange(3)
    slope = (torch.stack(quadratic, 1) * powers).sum(1)
    return log + width * t * (torch.stack(quadratic, 1) * powers / torch.arange(1, 4)).sum(1), slope


@pytest.mark.parametrize("kernel", [Matern(0.3, 0.3), Matern(2.0, 30.2), KERNELS["mixture"](0.1)])
@pytest.mark.parametrize("variable", ["r", "r^2 / 2", "cosh r - 1"])
def test_tables_are_accurate_between_the_points_where_they_were_checked(kernel, variable):
    profile = profile_of(
        kernel, {"r": None, "r^2 / 2": tables.FLAT, "cosh r - 1": tables.HYPERBOLIC}[variable]
    )
    v = torch.logspace(-20, 8, 200_003, base=2, dtype=torch.float64).float()
    w = v.double()
    r, length = {
        "r": lambda: (w, torch.ones_like(w)),
        "r^2 / 2": lambda: ((2 * w).sqrt(), (2 * w).sqrt()),
        "cosh r - 1": lambda: ((w + (w * (w + 2)).sqrt()).log1p(), (w * (w + 2)).sqrt()),
    }[variable]()
    log, slope = read(profile, v, torch.zeros_like(v, dtype=torch.bool))
    torch.testing.assert_close(log, kernel.log(r), rtol=5e-7, atol=5e-7)
    torch.testing.assert_close(slope, kernel.dlog(r) / length, rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("kernel", "squares"),
    [
        *((SphericalMatern(0.3, 1.5), squares) for squares in (False, True)),
        *((SphericalMatern(0.05, math.inf), squares) for squares in (False, True)),
        (Matern(0.3, 0.7), True),
    ],
)
def test_tables_of_spheres_are_accurate_from_both_poles(kernel, squares):
    profile = profile_of(kernel, tables.SPHERICAL if squares else None)
    end = 0.999 if squares else math.pi / 2
    v = torch.logspace(-20, math.log2(end), 100_003, base=2, dtype=torch.float64).float()
    for far in (False, True):
        w = v.double()
        near = 2 * (w / 2).sqrt().asin() if squares else w
        r, length = math.pi - near if far else near, near.sin() if squares else torch.ones_like(w)
        log, slope = read(profile, v, torch.full_like(v, far, dtype=torch.bool))
        torch.testing.assert_close(log, kernel.log(r), rtol=5e-7, atol=5e-7)
        torch.testing.assert_close(slope, kernel.dlog(r) / length, rtol=1e-5, atol=0)


@pytest.fixture
def new_library():
    """The library is looked for anew, and once more after the test."""
    build.compiled.cache_clear()
    yield
    build.compiled.cache_clear()


@pytest.fixture
def quick_compiler(monkeypatch, tmp_path_factory):
    """A compiler that does not optimise, for tests of files."""
    compiler = tmp_path_factory.mktemp("compiler") / "cc"
    compiler.write_text('#!/bin/sh\nexec cc "$@" -O0\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))


@pytest.mark.parametrize(("processor", "known"), [("x86-64", ()), ("x86-64-v3", ("AVX2", "AVX512"))])
@pytest.mark.usefixtures("new_library")
def test_vectors_of_older_processors(processor, known, monkeypatch, tmp_path):
    capability = torch.backends.cpu.get_cpu_capability()
    if platform.machine() != "x86_64" or (known and capability not in known):
        pytest.skip("another processor")
    flags = {"-march=native": f"-march={processor}", "-O3": "-O1"}
    monkeypatch.setattr(build, "FLAGS", [flags.get(flag, flag) for flag in build.FLAGS])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for space in ("R^2", "R^17", "R^64", "S^2", "S^16", "H^2", "H^4"):
        kernels = [Laplace(1.0), Matern(1.0, 1.5), Matern(1.0, 0.8)]
        check(SPACES[space][0], kernels, cloud(space, 37, 0), cloud(space, 611, 1))
        check(SPACES[space][0], kernels[:1], *clusters(space, 1e-2))
    for shape in ((6, 4), (2, 20)):
        check_product(points((11, *shape), 0), points((290, *shape), 1), [Laplace(1.0)], product=False)
    x, y = cloud("R^3", 37, 0), cloud("R^3", 2000, 1)
    nearest = tree(y).nearest(x, 9)
    assert torch.equal(nearest, torch.cdist(x.double(), y.double()).topk(9, largest=False).indices)


@pytest.mark.usefixtures("new_library")
def test_the_compiler_does_not_split_some_of_the_multiply_adds(monkeypatch, tmp_path):
    """As GCC does for AMD's processors, in loops of its choice."""
    if torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        pytest.skip("another processor")
    flags = {"-march=native": "-march=x86-64-v3"}
    monkeypatch.setattr(build, "FLAGS", ["-mtune=znver2", *(flags.get(flag, flag) for flag in build.FLAGS)])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for space in ("R^17", "S^16"):
        check_alone(space)


@pytest.mark.parametrize("compiler", ["/nowhere/cc", "false", "true"])
@pytest.mark.usefixtures("new_library")
def test_without_a_working_compiler_torch_computes(compiler, monkeypatch, tmp_path):
    monkeypatch.setenv("CC", compiler)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    x, y = cloud("S^2", 4, 0), cloud("S^2", 9, 1)
    assert fused(Sphere(), [Laplace(0.5)], x, y) is None
    assert smoothed_score(Sphere(), Laplace(0.5), x, y).gradient.isfinite().all()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.usefixtures("new_library", "quick_compiler")
def test_without_a_cache_folder_the_library_is_compiled_for_the_process(monkeypatch, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    x, y = cloud("S^2", 4, 0), cloud("S^2", 9, 1)
    assert fused(Sphere(), [Laplace(0.5)], x, y) is not None


@pytest.mark.usefixtures("new_library", "quick_compiler")
def test_a_damaged_library_is_compiled_anew(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert build.compiled() is not None
    (path,) = (tmp_path / "drift-core").iterdir()
    good = len(path.read_bytes())
    path.unlink()  # what is loaded stays
    path.write_bytes(b"damaged")
    build.compiled.cache_clear()
    assert build.compiled() is not None
    assert len(path.read_bytes()) == good
    build.compiled.cache_clear()
    assert build.compiled()._name == str(path)


_USE = """
import os, torch
from drift_core import Laplace, Sphere, smoothed_score
from drift_core.engine.build import compiled
children = [os.fork()]
if children[-1]:
    children.append(os.fork())
x = torch.nn.functional.normalize(torch.randn(64, 3), dim=-1)
fine = compiled() is not None and bool(smoothed_score(Sphere(), Laplace(0.5), x, x).gradient.isfinite().all())
if 0 in children:
    os._exit(not fine)
assert fine and [os.waitpid(child, 0)[1] for child in children] == [0, 0]
"""


@pytest.mark.usefixtures("quick_compiler")
def test_processes_that_compile_at_once_do_not_disturb_one_another(tmp_path):
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    assert subprocess.run([sys.executable, "-c", _USE], env=environment, check=False).returncode == 0
    assert [path.suffix for path in (tmp_path / "drift-core").iterdir()] == [".so"]


_THREADS = """
import ctypes, os, threading, torch
torch.set_num_threads(2)
from drift_core import Laplace, Sphere, smoothed_score
from drift_core.engine import disabled, tree
from drift_core.engine.build import compiled
x = torch.nn.functional.normalize(torch.randn(2_000, 3), dim=-1)
def users(tasks=2):
    names = []
    record = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)
    call = record(lambda _: names.append(threading.get_native_id()))
    compiled().drift_threads(*map(ctypes.c_int64, (2, tasks)), call, None)
    assert len(set(names)) == len(names) == tasks
    return set(names)
def existing():
    return {int(name) for name in os.listdir("/proc/self/task")}
def results():
    return smoothed_score(Sphere(), Laplace(0.5), x, x).gradient, tree(x).nearest(x, 3)
def check_fork():
    child = os.fork()
    if child:
        assert os.waitpid(child, 0)[1] == 0
        return
    fine = os.getpid() in users() and existing() == {os.getpid()}
    shared = results()
    torch.set_num_threads(1)
    os._exit(not (fine and all(map(torch.equal, shared, results()))))
with disabled():
    smoothed_score(Sphere(), Laplace(0.5), x, x)  # starts torch's threads
check_fork()
before = existing()
assert users() <= before and users(1) == {os.getpid()}
check_fork()
assert users() <= before
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="Linux alone tells the threads of a process")
def test_loops_run_in_the_threads_of_torch_and_a_fork_in_its_own():
    """A fork has none of torch's threads, whether the library was loaded before or not."""
    subprocess.run([sys.executable, "-W", "ignore", "-c", _THREADS], timeout=120, check=True)


_PEAK = """
import resource, torch
from drift_core import Laplace, Sphere, smoothed_score
x = torch.nn.functional.normalize(torch.randn(20_000, 3), dim=-1)
smoothed_score(Sphere(), Laplace(0.5), x[:100], x)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = peak()
smoothed_score(Sphere(), Laplace(0.5), x, x)
print(peak() - before)
"""


def test_memory_is_linear_in_the_clouds():
    """20,000 x 20,000 float32 numbers would be 1.6 GB."""
    out = subprocess.run([sys.executable, "-c", _PEAK], capture_output=True, text=True, check=True).stdout
    assert float(out) < 32
