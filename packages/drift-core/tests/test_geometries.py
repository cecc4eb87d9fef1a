"""Tori, rotations, products, matrices, subspaces and curvature, against geoopt, scipy and closed forms."""

import math
import warnings

import geoopt
import numpy as np
import pytest
import torch
from drift_core import (
    SO3,
    SPD,
    Euclidean,
    GeooptManifold,
    Grassmannian,
    Hyperboloid,
    KernelField,
    Laplace,
    Manifold,
    Matern,
    Power,
    Product,
    Sphere,
    SphericalMatern,
    Stiefel,
    Torus,
    TrainConfig,
    smoothed_score,
    train,
)
from drift_core.engine import build, disabled, fused
from drift_core.lengthscale import parse_lengthscales
from drift_core.testing import check_drift, check_isometry, check_manifold
from drift_core.training.parallel import make_accelerator
from drift_core.training.samplers import resample
from scipy.linalg import expm, null_space, subspace_angles
from scipy.spatial.transform import Rotation
from torch import Tensor

MANIFOLDS: dict[str, tuple[Manifold, tuple[int, ...]]] = {
    "sphere-of-radius-3": (Sphere(3.0), (4,)),
    "hyperboloid-of-curvature-4": (Hyperboloid(-4.0), (4,)),
    "torus": (Torus(3), (3,)),
    "rotations": (SO3(), (4,)),
    "spd": (SPD(2), (2, 2)),
    "product": (Product((SO3(), 4), (Torus(2), 2), (Euclidean(), 1), weights=(1.0, 0.5, 2.0)), (7,)),
    "power": (Power(Sphere(3.0)), (2, 3)),
    "grassmannian": (Grassmannian(4, 2), (4, 2)),
    "grassmannian-of-dimension-3": (Grassmannian(5, 3), (5, 3)),
    "stiefel": (Stiefel(4, 2), (4, 2)),
}
FUSED = {"sphere-of-radius-3", "hyperboloid-of-curvature-4", "torus", "spd", "power"}


@pytest.fixture(params=MANIFOLDS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def points_of(name: str, n: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    manifold, shape = MANIFOLDS[name]
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn((n, *shape), generator=generator, dtype=torch.float64)
    noise = torch.linalg.matrix_exp(noise + noise.mT) if name == "spd" else 2 * noise
    return manifold.projx(noise).to(dtype)


def quaternions(n: int, seed: int = 0) -> Tensor:
    noise = torch.randn(n, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(noise, dim=-1)


def log_euclidean() -> geoopt.SymmetricPositiveDefinite:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return geoopt.SymmetricPositiveDefinite("LEM")


def test_laws(name):
    manifold, x, y = MANIFOLDS[name][0], points_of(name, 8, 0), points_of(name, 8, 1)
    check_manifold(manifold, x, y, tol=1e-6)
    check_drift(manifold, Laplace(0.7), x[:5], y)


def test_float32_distances_hold_when_points_are_near(name):
    """At 1e-4, against the float64 distance of the same float32 points; on the torus across the cut, too."""
    manifold, x = MANIFOLDS[name][0], points_of(name, 60, 0)
    if name == "torus":
        x[:30, 0] = math.pi - 3e-5
    u = manifold.proju(x, points_of(name, 60, 1))
    u = 1e-4 * u / manifold.norm(x, u).reshape(-1, *(1,) * manifold.point_ndim)
    x32, y32 = x.float(), manifold.expmap(x, u).float()
    exact = manifold.dist(*(manifold.projx(t.double()) for t in (x32, y32)))
    for measured in (manifold.dist(x32, y32), manifold.cdist(x32, y32).diagonal()):
        assert float(((measured.double() - exact) / exact).abs().max()) < 1e-3
    assert float((exact - 1e-4).abs().max()) < (1e-4 if name == "spd" else 1e-6)


@pytest.mark.parametrize("name", sorted(FUSED), indirect=True)
@pytest.mark.parametrize("direction", ["gradient", "displacement"])
@pytest.mark.parametrize("kernel", [Laplace(0.8), Matern(0.8, 0.8)], ids=["formula", "table"])
def test_fused_loops_serve_them_by_their_similarity(name, direction, kernel):
    if build.compiled() is None:
        pytest.skip("there is no C compiler")
    manifold = MANIFOLDS[name][0]
    x, y = points_of(name, 20, 0, torch.float32), points_of(name, 300, 1, torch.float32)
    assert fused(manifold, [kernel], x, y) is not None
    score = smoothed_score(manifold, kernel, x, y, direction=direction)
    with disabled():
        expected = smoothed_score(manifold, kernel, x.double(), y.double(), direction=direction)
    gap = (score.gradient - expected.gradient).norm() / expected.gradient.norm()
    assert float(gap) < 2e-5
    torch.testing.assert_close(score.log_density.double(), expected.log_density, rtol=1e-5, atol=1e-5)


def rotated(x: Tensor) -> Tensor:
    """Rows turned by a fixed orthogonal matrix."""
    d = x.shape[-1]
    noise = torch.randn(d, d, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    return x @ torch.linalg.qr(noise).Q


def boosted(x: Tensor) -> Tensor:
    """The hyperbolic translation by 0.7 along the first axis of space."""
    time, space, rest = x[..., :1], x[..., 1:2], x[..., 2:]
    c, s = math.cosh(0.7), math.sinh(0.7)
    return torch.cat([c * time + s * space, s * time + c * space, rest], dim=-1)


ISOMETRIES = {
    "sphere-of-radius-3": rotated,
    "hyperboloid-of-curvature-4": boosted,
    "torus": lambda x: Torus(3).projx(2 - x.flip(-1)),
    "rotations": rotated,
    "spd": lambda x: torch.linalg.inv(3 * rotated(rotated(x).mT)),
    "product": lambda x: torch.cat(
        [rotated(x[..., :4]), Torus(2).projx(x[..., 4:6] + 1), 5 - x[..., 6:]], dim=-1
    ),
    "power": rotated,
    "grassmannian": lambda x: rotated(x.mT).mT,
    "grassmannian-of-dimension-3": lambda x: rotated(x.mT).mT,
    "stiefel": lambda x: rotated(rotated(x.mT).mT),
}


def test_isometries_keep_the_geometry(name):
    check_isometry(MANIFOLDS[name][0], ISOMETRIES[name], points_of(name, 8, 0), points_of(name, 8, 1))


def test_what_is_no_isometry_is_found():
    x, y = points_of("spd", 8, 0), points_of("spd", 8, 1)
    shear = torch.tensor([[1.0, 0.5], [0.0, 1.0]]).double()
    with pytest.raises(AssertionError, match="an isometry keeps distances"):
        check_isometry(SPD(2), lambda m: shear @ m @ shear.mT, x, y)


def test_each_trains(name, make_net, discrepancy, tmp_path):
    """The maximum mean discrepancy of samples and data, of a Laplace kernel, falls to less than half."""
    manifold, shape = MANIFOLDS[name]
    data = points_of(name, 1, 3, torch.float32)
    around = 0.3 * torch.randn(64, *shape, generator=torch.Generator().manual_seed(5))
    data = manifold.expmap(data, manifold.proju(data, around))
    config = TrainConfig.of(steps=60, batch_size=32, lr=0.05, warmup_steps=1, step_size=0.5, ema_decay=0.5)
    field, net = KernelField(manifold, Laplace, parse_lengthscales("1")), make_net(manifold, shape)

    before = discrepancy(manifold, net, data)
    trained = train(net, field, resample(data), config, tmp_path, accelerator=make_accelerator())
    assert discrepancy(manifold, trained, data) < before / 2


def test_scaled_curvature_agrees_with_geoopt():
    sphere, scaled = Sphere(3.0), GeooptManifold(geoopt.Scaled(geoopt.Sphere(), 3.0))
    x, y = points_of("sphere-of-radius-3", 2 * 20, 0).chunk(2)
    torch.testing.assert_close(sphere.dist(x, y), scaled.dist(x / 3, y / 3))
    torch.testing.assert_close(sphere.logmap(x, y), 3 * geoopt.Sphere().logmap(x / 3, y / 3))
    assert sphere.injectivity_radius == scaled.injectivity_radius
    ours, theirs = Hyperboloid(-4.0), geoopt.Lorentz(k=0.25)
    x, y = points_of("hyperboloid-of-curvature-4", 2 * 20, 0).chunk(2)
    torch.testing.assert_close(x, theirs.projx(x))
    u = 0.1 * ours.proju(x, y)
    torch.testing.assert_close(u, theirs.proju(x, 0.1 * y))
    torch.testing.assert_close(ours.dist(x, y), theirs.dist(x, y))
    torch.testing.assert_close(ours.expmap(x, u), theirs.expmap(x, u))
    torch.testing.assert_close(ours.logmap(x, y), theirs.logmap(x, y))


def test_kernels_of_the_unit_sphere_are_refused_on_others():
    x = points_of("sphere-of-radius-3", 4, 0)[:, :3]
    with pytest.raises(ValueError, match=r"unit sphere S\^2 .* got Sphere\(3\)"):
        smoothed_score(Sphere(3.0), SphericalMatern(0.5, 1.5), x, x)


def test_the_torus_is_a_product_of_circles():
    x, y = points_of("torus", 2 * 30, 0).chunk(2)
    circles = [torch.stack([t.cos(), t.sin()], dim=-1) for t in (x, y)]
    torch.testing.assert_close(Torus(3).cdist(x, y), Power(Sphere()).cdist(*circles))
    assert float(x.abs().max()) <= math.pi
    torch.testing.assert_close(Torus(3).projx(x + 6 * math.pi), x)
    ends = torch.tensor([[-math.pi], [math.pi]]).float()
    assert torch.equal(Torus(1).projx(ends), ends)
    assert float(Torus(1).dist(ends[0], ends[1])) < 2e-7  # by how much a float32 pi is more than pi


def test_half_a_turn_has_a_distance_and_no_direction():
    x, y = torch.tensor([[[0.0, 0.5]], [[math.pi, 0.0]]], dtype=torch.float64).unbind()
    torch.testing.assert_close(Torus(2).logmap(x, y), torch.tensor([[0.0, -0.5]]).double())
    assert float(Torus(2).dist(x, y)) == pytest.approx(math.hypot(math.pi, 0.5))
    units = torch.eye(4)
    for dtype in (torch.float32, torch.float64):
        angles = SO3().cdist(units.to(dtype), units.to(dtype))
        expected = math.pi * (1 - torch.eye(4, dtype=dtype))
        torch.testing.assert_close(angles, expected, atol=1e-6, rtol=0)
        assert bool(
            (SO3().log_sum(units.to(dtype), units.to(dtype), 1 - torch.eye(4, dtype=dtype)) == 0).all()
        )


def test_rotations_agree_with_scipy_and_matrices():
    x, y = quaternions(30, 0), quaternions(30, 1)
    by_scipy = (
        Rotation.from_quat(x.numpy(), scalar_first=True),
        Rotation.from_quat(y.numpy(), scalar_first=True),
    )
    torch.testing.assert_close(SO3.to_matrix(x), torch.from_numpy(by_scipy[0].as_matrix()))
    angle = torch.from_numpy((by_scipy[0].inv() * by_scipy[1]).magnitude())
    torch.testing.assert_close(SO3().dist(x, y), angle)
    back = SO3.from_matrix(SO3.to_matrix(x))
    torch.testing.assert_close(back * (back * x).sum(-1, keepdim=True).sign(), x)
    half_turns = torch.eye(4).double()[1:]
    assert float(SO3().dist(SO3.from_matrix(SO3.to_matrix(half_turns)), half_turns).max()) < 1e-7
    assert SO3.from_matrix(torch.eye(3)).tolist() == [1, 0, 0, 0]


def test_geodesics_of_rotations_are_those_of_matrices():
    """exp_x(u) is R(x) expm(hat(omega)) for u = x (0, omega) / 2, and |u| is |omega|."""
    x = quaternions(10)
    omega = torch.randn(10, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    w, v = x[:, :1], x[:, 1:]
    u = torch.cat([-(v * omega).sum(-1, keepdim=True), w * omega + torch.linalg.cross(v, omega)], dim=-1) / 2
    torch.testing.assert_close(SO3().norm(x, u), omega.norm(dim=-1))
    hat = torch.linalg.cross(torch.eye(3).double().expand(10, 3, 3), omega[:, None].expand(10, 3, 3))
    expected = SO3.to_matrix(x) @ torch.linalg.matrix_exp(-hat.mT)
    torch.testing.assert_close(SO3.to_matrix(SO3().expmap(x, u)), expected)


def test_signs_of_quaternions_do_not_matter():
    x, y = quaternions(6, 0), quaternions(20, 1)
    signs = torch.where(torch.arange(20) % 2 == 0, 1.0, -1.0).double()[:, None]
    for dtype in (torch.float32, torch.float64):
        points = [t.to(dtype) for t in (x, y, signs * y)]
        torch.testing.assert_close(SO3().dist(points[1], points[2]), torch.zeros(20).to(dtype))
        one, other = (smoothed_score(SO3(), Laplace(0.5), points[0], t) for t in points[1:])
        mirrored = smoothed_score(SO3(), Laplace(0.5), -points[0], points[1])
        torch.testing.assert_close(one.gradient, other.gradient)
        torch.testing.assert_close(mirrored.gradient, -one.gradient)


@pytest.mark.parametrize("matrix", [-torch.eye(3), 2 * torch.eye(3), torch.full((3, 3), math.nan)])
def test_matrices_that_are_no_rotation_are_refused(matrix):
    with pytest.raises(ValueError, match="matrix 1 is no rotation"):
        SO3.from_matrix(torch.stack([torch.eye(3), matrix]))


@pytest.mark.parametrize("p", [1, 2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_distances_of_subspaces_are_the_norm_of_scipys_angles(p, dtype):
    manifold, noise = Grassmannian(5, p), torch.randn(2, 6, 5, p, generator=torch.Generator().manual_seed(p))
    x, y = manifold.projx(noise.to(dtype)).unbind()
    y[0] = x[0]
    y[1, :, 0] = x[1, :, 0]  # one angle is 0; and frames that are not orthonormal count as their span
    angles = [[subspace_angles(a, b) for b in y.double().numpy()] for a in x.double().numpy()]
    expected = torch.tensor(np.linalg.norm(angles, axis=-1)).to(dtype)
    atol = 1e-6 if dtype == torch.float32 else 3e-8  # of an arccos of 1
    torch.testing.assert_close(manifold.cdist(x, y), expected, atol=atol, rtol=0)
    torch.testing.assert_close(manifold.dist(x, y), expected.diagonal(), atol=5e-7, rtol=0)


def frames(n: int, seed: int = 0) -> Tensor:
    return points_of("stiefel", n, seed)


def test_what_subspaces_are_does_not_depend_on_frames():
    x, y = frames(6), frames(20, 1)
    turn = torch.linalg.qr(torch.randn(26, 2, 2, generator=torch.Generator().manual_seed(2)).double()).Q
    score = smoothed_score(Grassmannian(4, 2), Laplace(0.5), x, y)
    turned = smoothed_score(Grassmannian(4, 2), Laplace(0.5), x @ turn[:6], y @ turn[6:])
    torch.testing.assert_close(turned.gradient, score.gradient @ turn[:6])
    torch.testing.assert_close(turned.log_density, score.log_density)


@pytest.mark.parametrize("manifold", [Grassmannian(4, 2), Stiefel(4, 2)], ids=repr)
def test_geodesics_of_frames_are_turns_of_space(manifold):
    """exp_X(U) is Q expm([[A, -B^T], [B, 0]]) of the first axes, for U = Q [A; B] and Q = [X, complement]."""
    x = frames(5)
    u = manifold.proju(x, torch.randn(x.shape, generator=torch.Generator().manual_seed(3)).double())
    for at, step in zip(x.numpy(), u.numpy(), strict=True):
        basis = np.hstack([at, null_space(at.T)])
        generator = np.hstack([basis.T @ step, np.zeros((4, 2))])
        generator[:2, 2:] = -generator[2:, :2].T
        end = torch.from_numpy((basis @ expm(generator))[:, :2])
        found = manifold.expmap(torch.from_numpy(at), torch.from_numpy(step))
        assert float(manifold.dist(found, end)) < 1e-7
    lines, opposite = torch.eye(4).double()[:2].unsqueeze(-1)
    assert float(Grassmannian(4, 1).dist(lines, opposite)) == pytest.approx(math.pi / 2)
    assert not Grassmannian(4, 1).logmap(lines, opposite).any()


def test_frames_agree_with_geoopt_rotations_and_spheres():
    """Of geoopt's canonical metric: it has no logarithm there, and for exponential a retraction."""
    ours, theirs = Stiefel(4, 2), geoopt.CanonicalStiefel()
    x, noise = frames(20), frames(20, 1) + 0.3 * frames(20, 2)
    u, v = ours.proju(x, noise), ours.proju(x, noise.flip(0))
    torch.testing.assert_close(ours.projx(noise), theirs.projx(noise))
    torch.testing.assert_close(u, geoopt.EuclideanStiefel().proju(x, noise))
    torch.testing.assert_close(ours.inner(x, u, v), theirs.inner(x, u, v))
    torch.testing.assert_close(ours.egrad2rgrad(x, noise), theirs.egrad2rgrad(x, noise))
    x, y = quaternions(30, 0), quaternions(30, 1)
    turns = (SO3.to_matrix(q)[..., :2] for q in (x, y))
    torch.testing.assert_close(Stiefel(3, 2).dist(*turns), SO3().dist(x, y))
    vectors = Stiefel(4, 1).logmap(x[..., None], y[..., None])
    torch.testing.assert_close(vectors[..., 0], Sphere().logmap(x, y))


def test_products_agree_with_geoopt():
    theirs = geoopt.ProductManifold(
        (geoopt.Sphere(), 3), (log_euclidean(), (2, 2)), (geoopt.Euclidean(ndim=1), 2)
    )
    ours = Product((Sphere(), 3), (SPD(2), (2, 2)), (Euclidean(), 2))
    sphere, matrix, line = quaternions(8)[:, :3], points_of("spd", 8, 0), quaternions(8, 2)[:, :2]
    x = ours.join(Sphere().projx(sphere), matrix, line)
    assert [part.shape[1:] for part in ours.split(x)] == [(3,), (2, 2), (2,)]
    torch.testing.assert_close(ours.dist(x[:4], x[4:]), theirs.dist(x[:4], x[4:]))
    weighted = Product((Sphere(), 3), (Euclidean(), 2), weights=(4.0, 0.25))
    a, b = torch.tensor([[1.0, 0, 0, 0, 0], [0, 1.0, 0, 0, 6]]).double()
    assert float(weighted.dist(a, b)) == pytest.approx(math.hypot(2 * math.pi / 2, 0.5 * 6))
    assert weighted.injectivity_radius == 2 * math.pi


def test_logarithms_are_differentiable_at_equal_eigenvalues():
    x = torch.eye(3).double().requires_grad_()
    y = torch.diag(torch.tensor([1.0, 2.0, 4.0])).double()
    (gradient,) = torch.autograd.grad(SPD(3).dist(x, y).square(), x)
    torch.testing.assert_close(
        gradient, -2 * torch.diag(torch.tensor([0, math.log(2), math.log(4)]).double())
    )


def test_what_is_no_point_is_projected_to_a_definite_matrix():
    x = torch.diag(torch.tensor([2.0, -1.0, 0.0]))
    expected = torch.diag(torch.tensor([2.0, 1.0, 2e-6]))
    torch.testing.assert_close(SPD(3).projx(x), expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Sphere(0.0), "radius must be a positive finite number, got 0.0"),
        (lambda: Hyperboloid(1.0), "curvature must be a negative finite number, got 1.0"),
        (lambda: Torus(0), "at least one angle, got d = 0"),
        (lambda: Grassmannian(3, 3), "Grassmannian needs 1 <= p < n, got n = 3 and p = 3"),
        (lambda: Stiefel(3, 0), "Stiefel needs 1 <= p < n, got n = 3 and p = 0"),
        (lambda: SPD(0), "at least one row, got n = 0"),
        (lambda: Product(), "at least one factor"),
        (lambda: Product((SO3(), 3)), r"SO3\(\) has no points of shape \[3\]"),
        (lambda: Product((Sphere(), 3), weights=(1.0, 2.0)), "1 factors needs as many weights, got 2"),
        (lambda: Product((Sphere(), 3), weights=(0.0,)), "a weight must be a positive finite number"),
        (lambda: Torus(2).cdist(torch.ones(4, 3), torch.ones(4, 3)), r"Torus\(2\) has points of shape \[2\]"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
