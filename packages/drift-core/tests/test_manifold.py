"""Geometry against closed forms and geoopt in float64, and what naive float32 would have given."""

import math

import geoopt
import pytest
import torch
from drift_core import Euclidean, Hyperboloid, Power, Sphere
from drift_core.manifold.numerics import euclidean_cdist


def _at_angle(x: torch.Tensor, angle: float, seed: int = 5) -> torch.Tensor:
    """Float64 points at a given angle from each x, in random directions."""
    generator = torch.Generator().manual_seed(seed)
    u = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    u = torch.nn.functional.normalize(u - (u * x).sum(-1, keepdim=True) * x, dim=-1)
    return math.cos(angle) * x + math.sin(angle) * u


@pytest.mark.parametrize("oracle", [(Sphere(), geoopt.Sphere()), (Hyperboloid(), geoopt.Lorentz())])
def test_point_functions_agree_with_geoopt(oracle):
    ours, theirs = oracle
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(3, 50, 4, generator=generator, dtype=torch.float64)
    x, y = ours.projx(noise[0]), ours.projx(noise[1])
    u = ours.proju(x, noise[2])
    torch.testing.assert_close(x, theirs.projx(noise[0]))
    torch.testing.assert_close(u, theirs.proju(x, noise[2]))
    torch.testing.assert_close(ours.dist(x, y), theirs.dist(x, y))
    torch.testing.assert_close(ours.expmap(x, 0.3 * u), theirs.expmap(x, 0.3 * u))
    torch.testing.assert_close(ours.logmap(x, y), theirs.logmap(x, y))
    torch.testing.assert_close(ours.inner(x, u, u), theirs.inner(x, u, u))


@pytest.mark.parametrize("angle", [1e-6, 1e-4, 1e-2, 1.0, 3.0, math.pi - 1e-4])
@pytest.mark.parametrize("d", [3, 40])
def test_float32_sphere_distances_hold_at_both_ends(angle, d):
    generator = torch.Generator().manual_seed(0)
    x = torch.nn.functional.normalize(torch.randn(200, d, generator=generator, dtype=torch.float64), dim=-1)
    x32, y32 = x.float(), _at_angle(x, angle).float()
    # What float32 points can tell: their own distance in float64.
    near = (torch.nn.functional.normalize(x32.double()) - torch.nn.functional.normalize(y32.double())).norm(
        dim=-1
    )
    far = (torch.nn.functional.normalize(x32.double()) + torch.nn.functional.normalize(y32.double())).norm(
        dim=-1
    )
    exact = 2 * torch.atan2(near, far)
    for measured in (Sphere().dist(x32, y32), Sphere().cdist(x32, y32).diagonal()):
        assert float(((measured.double() - exact) / exact).abs().max()) < (1e-3 if angle >= 1e-4 else 0.05)


def test_arccos_and_geoopt_fail_where_ours_holds():
    generator = torch.Generator().manual_seed(0)
    x = torch.nn.functional.normalize(torch.randn(200, 3, generator=generator, dtype=torch.float64), dim=-1)
    x32, y32 = x.float(), _at_angle(x, 1e-4).float()
    naive = torch.arccos((x32 @ y32.T).clamp(-1, 1)).diagonal()
    assert float((naive - 1e-4).abs().max()) > 1e-4
    assert float(geoopt.Sphere().dist(x32, y32).min()) > 0.01
    assert float((Sphere().cdist(x32, y32).diagonal() - 1e-4).abs().max()) < 1e-7


@pytest.mark.parametrize("radius", [0.0, 1.0, 4.0])
def test_float32_hyperboloid_distances_of_close_points(radius):
    direction = torch.tensor([0.6, 0.8], dtype=torch.float64)

    def at(r: float) -> torch.Tensor:
        return torch.cat([torch.tensor([math.cosh(r)], dtype=torch.float64), math.sinh(r) * direction])[None]

    x, y = at(radius).float(), at(radius + 1e-2).float()
    for measured in (Hyperboloid().dist(x, y), Hyperboloid().cdist(x, y)[0]):
        assert float(measured) == pytest.approx(1e-2, rel=1e-3)
    inner = (x * y).sum() - 2 * x[0, 0] * y[0, 0]
    naive = float(torch.arccosh((-inner).clamp_min(1)))
    if radius == 4.0:  # 70% of what is left of arcosh in float32 is rounding
        assert naive != pytest.approx(1e-2, rel=0.1)


def test_hyperboloid_points_stay_on_the_sheet():
    manifold = Hyperboloid()
    generator = torch.Generator().manual_seed(0)
    x = manifold.projx(torch.randn(100, 3, generator=generator))
    for _ in range(200):
        u = manifold.proju(x, torch.randn(100, 3, generator=generator))
        x = manifold.expmap(x, 0.1 * u / manifold.norm(x, u)[:, None])
    norm = x[:, 1:].double().square().sum(-1) - x[:, 0].double().square()
    assert float(((norm + 1) / x[:, 0].double().square()).abs().max()) < 1e-6


@pytest.mark.parametrize("d", [3, 40])
def test_euclidean_distances_far_from_the_origin(d):
    generator = torch.Generator().manual_seed(0)
    x = 1000 + torch.randn(50, d, generator=generator)
    y = x + 1e-2 * torch.randn(50, d, generator=generator)
    exact = (x.double()[:, None] - y.double()).norm(dim=-1)
    assert float(((euclidean_cdist(x, y) - exact) / exact).abs().max()) < 1e-4
    naive = torch.cdist(x, y, compute_mode="use_mm_for_euclid_dist")
    assert float((naive - exact).abs().max()) > 1e-2
    torch.testing.assert_close(Euclidean().cdist(x, x).diagonal(), torch.zeros(50))


def test_antipodal_points_have_a_distance_and_no_direction():
    x = torch.nn.functional.normalize(torch.randn(20, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
    assert float((Sphere().cdist(x, -x).diagonal() - math.pi).abs().max()) < 1e-6
    assert bool((Sphere().logmap(x, -x) == 0).all())
    assert float(Sphere().log_sum(x, -x, torch.eye(20)).abs().max()) < 1e-6


def test_distances_have_finite_gradients_at_zero(manifold, cloud):
    x = cloud(4).requires_grad_()
    (gradient,) = torch.autograd.grad(manifold.dist(x, x.detach()).square().sum(), x)
    assert bool((gradient == 0).all())


@pytest.mark.parametrize(
    ("x", "y"), [((3,), (4, 3)), ((5, 3), (4, 2)), ((5, 2, 3), (4, 3))], ids=["no batch", "dimension", "axes"]
)
def test_clouds_that_do_not_fit_are_refused_with_their_shapes(x, y):
    with pytest.raises(ValueError, match=r"Sphere\(\) has points of 1 axes.*got \[.*\] and \[.*\]"):
        Sphere().cdist(torch.ones(x), torch.ones(y))
    for dtypes in ((torch.float32, torch.float64), (torch.bfloat16, torch.bfloat16)):
        with pytest.raises(ValueError, match="both clouds must be float32 or both float64"):
            Sphere().cdist(*(torch.ones(2, 3, dtype=dtype) for dtype in dtypes))


def test_power_sums_squared_distances():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.nn.functional.normalize(torch.randn(2, 6, 5, 4, generator=generator), dim=-1).unbind()
    by_hand = sum(Sphere().cdist(x[:, i], y[:, i]).square() for i in range(5)).sqrt()
    torch.testing.assert_close(Power(Sphere()).cdist(x, y), by_hand)
    assert Power(Sphere()).injectivity_radius == math.pi
    assert Power(Power(Sphere())).point_ndim == 3


@pytest.mark.parametrize("d", [3, 35, 300])
def test_no_pair_of_coincident_points_is_without_a_sine(d):
    generator = torch.Generator().manual_seed(0)
    x = (4 * torch.randn(20_000, d, generator=generator)).log_softmax(-1).div(2).exp()
    for block in x.split(1_000):
        r, direction_sum = Sphere().pairs(block, block)
        assert float(r.diagonal().max()) < 1e-6
        assert bool(direction_sum(torch.eye(1_000)).isfinite().all())
