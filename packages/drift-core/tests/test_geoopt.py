"""geoopt's manifolds: which ones work, and that fields and losses on them are right in both precisions."""

import math
import warnings
from collections.abc import Iterator

import geoopt
import pytest
import torch
from drift_core import (
    Gaussian,
    GeooptManifold,
    KernelField,
    Laplace,
    TrainConfig,
    cap_step,
    drift_loss,
    train,
)
from drift_core.lengthscale import auto_lengthscale, parse_lengthscales
from drift_core.manifold import generic
from drift_core.testing import check_drift
from drift_core.training.parallel import make_accelerator
from drift_core.training.samplers import resample
from torch import Tensor, nn

SPHERE, LINE, SPD = geoopt.Sphere(), geoopt.Euclidean(ndim=1), geoopt.SymmetricPositiveDefinite()

# Manifold, shape of its points, injectivity radius.
KNOWN = {
    "euclidean": (LINE, (4,), math.inf),
    "sphere": (SPHERE, (4,), math.pi),
    "sphere-exact": (geoopt.SphereExact(), (4,), math.pi),
    "ball": (geoopt.PoincareBall(), (3,), math.inf),
    "ball-c2": (geoopt.PoincareBall(c=2.0), (3,), math.inf),
    "stereographic": (geoopt.Stereographic(k=0.5), (3,), math.pi / math.sqrt(0.5)),
    "sphere-projection": (geoopt.SphereProjection(k=0.25), (3,), 2 * math.pi),
    "lorentz": (geoopt.Lorentz(), (4,), math.inf),
    "spd": (SPD, (2, 2), math.inf),
    "scaled-sphere": (geoopt.Scaled(SPHERE, 2.0), (4,), 2 * math.pi),
    "sphere-x-line": (geoopt.ProductManifold((SPHERE, 3), (LINE, 1)), (4,), math.pi),
    "sphere-x-spd": (geoopt.ProductManifold((SPHERE, 3), (SPD, (2, 2))), (7,), math.pi),
    "ball-x-sphere": (
        geoopt.StereographicProductManifold((geoopt.PoincareBall(), 3), (geoopt.SphereProjection(), 3)),
        (6,),
        math.pi,
    ),
}

LACKING = [
    geoopt.Stiefel,
    geoopt.CanonicalStiefel,
    geoopt.EuclideanStiefel,
    geoopt.BirkhoffPolytope,
    geoopt.UpperHalf,
    geoopt.BoundedDomain,
]


@pytest.fixture(params=KNOWN)
def name(request) -> str:
    return request.param


def points_of(name: str, n: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    manifold, shape, _ = KNOWN[name]
    noise = torch.rand((n, *shape), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return manifold.projx(0.7 * noise - 0.35).to(dtype)


def unit_vectors(manifold: GeooptManifold, x: Tensor, y: Tensor) -> Tensor:
    u = manifold.logmap(x, y)
    return u / manifold.norm(x, u).reshape(-1, *(1,) * manifold.point_ndim)


def test_fields_obey_their_laws(name):
    points = points_of(name, 16, 0)
    check_drift(GeooptManifold(KNOWN[name][0]), Laplace(0.7), points[:5], points[5:], tol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("step_size", [1e-6, 0.01, 0.3])
def test_the_riemannian_gradient_of_the_loss_is_the_step(name, dtype, step_size):
    """By geoopt's own conversion of gradients; through its distance, float32 gradients were 0 or NaN."""
    geometry = KNOWN[name][0]
    manifold = GeooptManifold(geometry)
    x, y = points_of(name, 6, 0, dtype), points_of(name, 6, 1, dtype)
    v = unit_vectors(manifold, x, y)
    x.requires_grad_()
    loss = drift_loss(manifold, x, v, step_size=step_size)
    assert float(loss.detach()) == pytest.approx(step_size**2, rel=1e-5)
    (ambient,) = torch.autograd.grad(loss, x)
    gradient = geometry.egrad2rgrad(x.detach(), ambient)
    error = (gradient + 2 * step_size / 6 * v).abs().max() / (step_size * v.abs().max())
    assert float(error) < (1e-5 if dtype == torch.float32 else 1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n", "m"), [(7, 5), (1, 1), (7, 40)])
def test_pairs_are_those_of_one_pair_at_a_time(name, dtype, n, m, monkeypatch):
    """Whether many rows fit into a block, some or one."""
    wrapped = GeooptManifold(KNOWN[name][0])
    x, y = points_of(name, n, 0, dtype), points_of(name, m, 1, dtype)
    weight = torch.rand(n, m, generator=torch.Generator().manual_seed(2), dtype=dtype)
    monkeypatch.setattr(generic, "_BLOCK", 3 * 5 * y[0].numel())
    pairs = wrapped.pairs(x, y)
    found = pairs.direction_sum(weight)
    assert (pairs.dist.shape, found.shape) == ((n, m), x.shape)
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1e-9, "atol": 1e-12}
    for i in range(n):
        total = torch.zeros_like(x[i])
        for j in range(m):
            r = wrapped.dist(x[i : i + 1], y[j : j + 1])[0]
            torch.testing.assert_close(pairs.dist[i, j], r, **tolerance)
            total += weight[i, j] * wrapped.logmap(x[i : i + 1], y[j : j + 1])[0] / r
        torch.testing.assert_close(found[i], total, **tolerance)


def test_no_step_at_the_identity_is_no_gradient():
    """geoopt differentiates its distance through equal eigenvalues there, which gives NaN."""
    x = (2 * torch.eye(3)).expand(4, 3, 3).clone().requires_grad_()
    loss = drift_loss(GeooptManifold(SPD), x, torch.zeros(4, 3, 3))
    (gradient,) = torch.autograd.grad(loss, x)
    assert float(loss.detach()) == 0
    assert bool((gradient == 0).all())


def test_steps_stop_short_of_the_injectivity_radius(name):
    manifold, radius = GeooptManifold(KNOWN[name][0]), KNOWN[name][2]
    assert manifold.injectivity_radius == pytest.approx(radius)
    x, y = points_of(name, 6, 0), points_of(name, 6, 1)
    step, clipped = cap_step(manifold, x, 9 * unit_vectors(manifold, x, y))
    assert bool(clipped.all()) == (radius < 9)
    length = torch.full((6,), min(9.0, 0.99 * radius)).double()
    torch.testing.assert_close(manifold.norm(x, step), length)


def test_long_steps_do_not_wrap_around_the_sphere():
    manifold = GeooptManifold(SPHERE)
    x, y = points_of("sphere", 6, 0), points_of("sphere", 6, 1)
    loss = drift_loss(manifold, x, 5 * unit_vectors(manifold, x, y))
    assert float(loss) == pytest.approx((0.99 * math.pi) ** 2)


@pytest.mark.parametrize("make", LACKING, ids=lambda make: make.__name__)
def test_manifolds_that_lack_a_function_are_refused_by_name(make):
    manifold = make()
    with pytest.raises(ValueError, match=r"does not implement (dist|expmap), logmap") as refused:
        GeooptManifold(manifold)
    assert repr(manifold)[:200] in str(refused.value)


def test_a_part_that_lacks_a_function_is_found():
    with pytest.raises(ValueError, match="does not implement dist, logmap"):
        GeooptManifold(geoopt.ProductManifold((SPHERE, 3), (geoopt.Stiefel(), (2, 2))))
    with pytest.raises(ValueError, match="does not implement ndim"):
        GeooptManifold(object())
    with pytest.raises(ValueError, match="points need an axis"):
        GeooptManifold(geoopt.Euclidean())


class Circles(geoopt.Sphere):
    """Somebody's own manifold of geoopt, which is a known one still."""


class Own:
    """A manifold in the manner of geoopt, of unknown geometry."""

    ndim = 1
    projx = proju = egrad2rgrad = inner = dist = expmap = logmap = lambda self, *points: points[0]


def log_euclidean() -> geoopt.SymmetricPositiveDefinite:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return geoopt.SymmetricPositiveDefinite("LEM")


def test_an_unknown_injectivity_radius_is_asked_for():
    assert GeooptManifold(Circles()).injectivity_radius == math.pi
    for manifold in (Own(), log_euclidean()):
        with pytest.raises(ValueError, match=r"give it as GeooptManifold\(manifold, injectivity_radius="):
            GeooptManifold(manifold)
    assert GeooptManifold(Own(), injectivity_radius=1.5).injectivity_radius == 1.5
    with pytest.raises(ValueError, match=r"must be positive, got 0\.0"):
        GeooptManifold(Own(), injectivity_radius=0.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_auto_lengthscales(name, dtype):
    manifold, points = GeooptManifold(KNOWN[name][0]), points_of(name, 40, 2)
    expected = auto_lengthscale(manifold, points)
    assert 0.01 < expected < 3
    # geoopt's projections are looser in some geometries than float32 is.
    assert auto_lengthscale(manifold, points.to(dtype)) == pytest.approx(expected, rel=1e-3)


@pytest.fixture
def plain_scripts() -> Iterator[None]:
    """geoopt's scripted functions as they are, without what TorchScript specialises on seen dtypes."""
    with torch.jit.optimized_execution(False):
        yield


@pytest.mark.usefixtures("plain_scripts")
def test_each_trains(name, make_net, tmp_path):
    geometry, shape, _ = KNOWN[name]
    manifold = GeooptManifold(geometry)
    data = manifold.projx(points_of(name, 64, 3, torch.float32).abs())
    if data.ndim == 3:
        data = torch.linalg.matrix_exp(data)
    field = KernelField(manifold, Gaussian, parse_lengthscales("0.7"))
    config = TrainConfig.of(
        steps=20, batch_size=32, lr=0.02, warmup_steps=1, log_every=1, step_size=0.2, ema_decay=0.5
    )
    net = make_net(manifold, shape)

    def far(module: nn.Module) -> float:
        """Mean distance from samples to data, all coordinates of which are positive."""
        with torch.no_grad():
            x = module(net.latent(64, torch.Generator().manual_seed(4)))
        return float(manifold.cdist(x, data).mean())

    before = far(net)
    trained = train(net, field, resample(data), config, tmp_path, accelerator=make_accelerator())
    assert all(bool(p.isfinite().all()) for p in trained.parameters())
    assert not torch.equal(trained.layer.weight, make_net(manifold, shape).layer.weight)
    assert far(trained) < before
