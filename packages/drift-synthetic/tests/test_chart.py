"""Charts: exact inverses, points on their space at the targets' full radius, lengths as geometry has them."""

import math

import pytest
import torch
from drift_synthetic import SPACES
from torch import Generator, Tensor


def disc(space, n: int = 2000) -> Tensor:
    """Chart points over the whole disc that targets reach, its centre and its edge included."""
    reach = 1.2 * space.roll if space.name != "hyperboloid" else 2.6
    generator = Generator().manual_seed(0)
    radius = reach * torch.rand(n, generator=generator, dtype=torch.float64)
    radius[:2] = torch.tensor([0.0, reach])
    angle = 2 * math.pi * torch.rand(n, generator=generator, dtype=torch.float64)
    return radius[:, None] * torch.stack([angle.cos(), angle.sin()], dim=1)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-14), (torch.float32, 2e-6)])
def test_chart_and_lift_are_inverse_to_rounding(space, dtype, tolerance):
    u = disc(space).to(dtype)
    x = space.lift(u)
    assert x.dtype == dtype
    assert x.shape == (len(u), len(space.columns))
    torch.testing.assert_close(space.chart(x), u, rtol=0, atol=tolerance)


def test_lifted_points_have_their_closed_form():
    u = disc(SPACES["sphere"])
    r = u.norm(dim=1, keepdim=True)
    ray = u / r.clamp_min(1e-300)
    torch.testing.assert_close(SPACES["plane"].lift(u), u, rtol=0, atol=0)
    on_sphere, on_hyperboloid = SPACES["sphere"].lift(u), SPACES["hyperboloid"].lift(u)
    torch.testing.assert_close(on_sphere, torch.cat([r.sin() * ray, r.cos()], dim=1), rtol=0, atol=1e-14)
    torch.testing.assert_close(
        on_hyperboloid, torch.cat([r.cosh(), r.sinh() * ray], dim=1), rtol=1e-14, atol=1e-14
    )


def test_float32_points_of_the_hyperboloid_have_minkowski_norm_minus_one():
    """Up to the edge, beyond the targets' full radius, whether it is summed in float64 or in float32."""
    space = SPACES["hyperboloid"]
    u = disc(space, 100_000)
    assert space.edge > 2.5
    x = space.lift((u * space.edge / u.norm(dim=1).max()).float())
    for y in (x, x.double()):
        square = y.square()
        assert float((square[:, 1:].sum(1) - square[:, 0] + 1).abs().max()) < 1e-5


def test_the_chart_keeps_distances_from_the_origin(space):
    u = disc(space)
    x = space.lift(u)
    origin = torch.tensor(space.origin, dtype=torch.float64).expand_as(x)
    torch.testing.assert_close(space.manifold.dist(origin, x), u.norm(dim=1), rtol=1e-12, atol=1e-12)


def test_vectors_are_pushed_with_the_lengths_of_normal_coordinates(space):
    """Radial vectors keep their length; across, circles of radius r are r, sin r or sinh r wide."""
    u = disc(space)[1:]
    x, r = space.lift(u), u.norm(dim=1)
    ray = u / r[:, None]
    across = torch.stack([-ray[:, 1], ray[:, 0]], dim=1)
    h = 1e-6
    for direction, width in (
        (ray, torch.ones_like(r)),
        (across, {"plane": r, "sphere": r.sin(), "hyperboloid": r.sinh()}[space.name] / r),
    ):
        v = (space.lift(u + h * direction) - space.lift(u - h * direction)) / (2 * h)
        torch.testing.assert_close(
            space.manifold.norm(x, space.manifold.proju(x, v)), width, rtol=1e-5, atol=1e-5
        )
        torch.testing.assert_close(space.push(x, 3 * v), 3 * direction, rtol=1e-4, atol=1e-4)


def test_ambient_vectors_are_projected_before_they_are_pushed(generator):
    sphere = SPACES["sphere"]
    x = sphere.lift(disc(sphere))
    v = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(sphere.push(x, v + 5 * x), sphere.push(x, v), rtol=1e-3, atol=1e-3)


def test_vectors_at_the_seam_of_the_torus_are_pushed_as_elsewhere(generator):
    x = math.pi * torch.tensor([[1.0, 0.3], [-1.0, 0.3], [0.2, 1.0], [1.0, -1.0]], dtype=torch.float64)
    v = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(SPACES["torus"].push(x, v), v, rtol=1e-6, atol=1e-6)  # flat: the same numbers


def test_zero_vectors_are_pushed_to_zero(space):
    x = space.lift(disc(space, 5))
    assert torch.equal(space.push(x, torch.zeros_like(x)), torch.zeros(5, 2, dtype=torch.float64))


def test_points_are_kept_within_the_edge_and_hardly_move_before_it(generator):
    space = SPACES["hyperboloid"]
    u = 10 ** torch.linspace(-2, 4, 500)[:, None] * torch.tensor([[0.6, 0.8]])
    kept, r = space.within(u), u.norm(dim=1)
    radius = kept.norm(dim=1)
    assert float(radius.max()) <= space.edge * (1 + 1e-6)
    assert bool((radius.diff() > -1e-5).all())
    torch.testing.assert_close(radius[r < 1.5], r[r < 1.5], rtol=1e-2, atol=0)
    torch.testing.assert_close(kept / radius[:, None], u / r[:, None])
    assert torch.equal(SPACES["plane"].within(u), u)
    zero = torch.zeros(3, 2, requires_grad=True)
    space.within(zero).sum().backward()
    assert zero.grad is not None
    assert zero.grad.isfinite().all()
