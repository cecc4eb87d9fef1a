import math

import pytest
import torch
from drift_core import (
    Batch,
    Drift,
    Euclidean,
    Field,
    Gaussian,
    KernelField,
    Laplace,
    Matern,
    Sphere,
    SphericalMatern,
    TrainConfig,
    smoothed_scores,
)
from drift_core.field import observe
from drift_core.fields.nearest import NearestField, NearestPoints, nearest_scores
from drift_core.lengthscale import parse_lengthscales


def step(field: Field, *batch: torch.Tensor | None, progress: float = 1.0) -> Drift:
    """Drift of a batch, which the field then observes, as in training."""
    seen = Batch(*batch, progress=progress)
    drift = field(seen)
    observe(field, seen)
    return drift


def field_of(manifold, scale: str = "0.05", direction: str = "gradient") -> KernelField:
    return KernelField(manifold, Laplace, parse_lengthscales(scale), direction)


def clusters(n: int, seed: int, width: float = 0.02) -> torch.Tensor:
    """Points on S^2 around the six poles, so that a few neighbours carry a short kernel."""
    generator = torch.Generator().manual_seed(seed)
    poles = torch.cat([torch.eye(3), -torch.eye(3)])[torch.randint(6, (n,), generator=generator)]
    return Sphere().projx(poles + width * torch.randn(n, 3, generator=generator))


def angles(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    chords = (x.double()[:, None] - y.double()).norm(dim=-1)
    return 2 * torch.asin((chords / 2).clamp(max=1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("k", [1, 7, 50])
def test_the_nearest_are_those_of_all_distances(manifold, cloud, k, dtype):
    x, y = cloud(20, 0, dtype), cloud(50, 1, dtype)
    index = NearestPoints(manifold, y)(x, k)
    r = manifold.dist(x[:, None], y[None])
    assert index.shape == (20, k)
    assert all(len(set(row)) == k for row in index.tolist())
    torch.testing.assert_close(r.gather(1, index), r.sort(1).values[:, :k])


def test_blocks_of_queries_change_nothing(manifold, cloud, monkeypatch):
    x, y = cloud(20), cloud(50, 1)
    whole = NearestPoints(manifold, y)(x, 5)
    monkeypatch.setattr("drift_core.fields.nearest._BLOCK", 150)
    assert torch.equal(NearestPoints(manifold, y)(x, 5), whole)


@pytest.mark.parametrize("k", [0, 4])
def test_more_neighbours_than_points_are_refused(k):
    with pytest.raises(ValueError, match=f"of 3 points the nearest {k} were asked for"):
        NearestPoints(Sphere(), torch.eye(3))(torch.eye(3), k)


def test_the_two_ways_to_the_nearest_agree_for_coincident_points():
    y = torch.eye(3).repeat_interleave(4, 0)
    index = NearestPoints(Sphere(), y)(torch.eye(3), 4)
    assert [sorted(row) for row in index.tolist()] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


@pytest.mark.parametrize("direction", ["gradient", "displacement"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_with_all_points_as_neighbours_it_is_the_smoothed_score(manifold, cloud, direction, dtype):
    x, y = cloud(12, 0, dtype), cloud(30, 1, dtype)
    y[3] = x[2]  # a coincident pair has no direction
    kernels = [Laplace(0.5), Gaussian(0.7), Matern(0.5, 2.5)]
    order = torch.stack([torch.randperm(30, generator=torch.Generator().manual_seed(i)) for i in range(12)])
    near = nearest_scores(manifold, kernels, x, y[order], direction=direction)
    far = smoothed_scores(manifold, kernels, x, y, direction=direction)
    tol = {torch.float32: 2e-5, torch.float64: 1e-9}[dtype]
    for a, b in zip(near, far, strict=True):
        torch.testing.assert_close(a.log_density, b.log_density, atol=tol, rtol=tol)
        torch.testing.assert_close(a.gradient, b.gradient, atol=tol, rtol=tol)


def test_kernels_of_the_sphere_alone_have_neighbours_too(sphere_cloud):
    x, y = sphere_cloud(8), sphere_cloud(20, 1)
    kernel = SphericalMatern(0.5, 1.5, dim=2)
    (near,) = nearest_scores(Sphere(), [kernel], x, y.expand(8, -1, -1))
    (far,) = smoothed_scores(Sphere(), [kernel], x, y)
    torch.testing.assert_close(near.gradient, far.gradient, atol=1e-6, rtol=1e-6)


def test_the_gradient_is_that_of_the_density_of_the_neighbours(manifold, cloud):
    x, towards = cloud(10), cloud(10, 2)
    y = cloud(40, 1)[NearestPoints(manifold, cloud(40, 1))(x, 6)]
    kernel = Laplace(0.8)

    def density(at):
        r = manifold.dist(at[:, None], y)
        return (-r / 0.8).logsumexp(1)

    u = manifold.logmap(x, towards)
    u = u / manifold.norm(x, u).reshape(-1, *(1,) * manifold.point_ndim)
    h = 1e-5
    slope = (density(manifold.expmap(x, h * u)) - density(manifold.expmap(x, -h * u))) / (2 * h)
    (score,) = nearest_scores(manifold, [kernel], x, y)
    torch.testing.assert_close(score.log_density, density(x), atol=1e-9, rtol=0)
    torch.testing.assert_close(manifold.inner(x, score.gradient, u), slope, atol=1e-6, rtol=0)


def test_what_the_neighbours_do_not_carry_is_measured():
    data = clusters(400, 0, width=0.1)
    field = NearestField(field_of(Sphere()), data, buffer_size=400, neighbors=20)
    r = angles(data, data).sort(1).values
    for scale in (0.3, 0.05, 0.01):
        kernel = torch.exp(-r / scale)
        lost = float((1 - kernel[:, :20].sum(1) / kernel.sum(1)).mean())
        assert field.tail_mass(scale) == pytest.approx(lost, abs=2e-5)
    assert field.tail_mass(0.3) > 0.5
    assert field.tail_mass(0.01) < 0.1


def test_it_is_the_field_of_the_batch_while_the_kernel_is_long_and_then_that_of_the_nearest():
    data, batch, x = clusters(400, 0, width=0.1), clusters(32, 1), clusters(16, 2)
    plain = field_of(Sphere(), "1:0.01")
    field = NearestField(plain, data, buffer_size=64, neighbors=20)
    assert (field.data_neighbors, field.sample_neighbors) == (20, 3)  # of 400 and of 64
    own = torch.arange(16)
    assert [field.resolves(p) for p in (0.0, 0.25, 0.5, 1.0)] == [False, False, True, True]
    earlier = [clusters(16, seed) for seed in range(3, 8)]
    for model in earlier:
        new, old = (
            step(field, x, batch, model, own, progress=0.25),
            step(plain, x, batch, model, own, progress=0.25),
        )
        assert torch.equal(new.field, old.field)
    assert torch.equal(field.samples, torch.cat(earlier[1:]))  # the last 64 of 80
    terms = step(field, x, batch, x, own, progress=1.0)  # of what was there before x came
    assert torch.equal(field.samples, torch.cat([*earlier[2:], x]))
    sets = (terms.attraction, data, 20), (terms.repulsion, torch.cat(earlier[1:]), 3)
    for part, points, k in sets:
        nearest = points[angles(x, points).argsort(1)[:, :k]]
        (score,) = nearest_scores(Sphere(), [Laplace(0.01)], x, nearest)
        torch.testing.assert_close(part, score.gradient, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_points_that_require_grad_are_looked_up_and_remembered_without(manifold, cloud, dtype):
    data, x = cloud(60, 0, dtype), cloud(16, 1, dtype)
    plain = field_of(manifold, "0.05")
    requiring = data.clone().requires_grad_()
    fields = [NearestField(plain, d, buffer_size=16, neighbors=60, tolerance=0.99) for d in (data, requiring)]
    for points in (x, x):
        without = step(fields[0], points, data, points)
        asking = points.clone().requires_grad_()
        drift = step(fields[1], asking, data, asking)
        # Torch computes what requires gradients, and the fused loops the rest: to 2e-5 in float32.
        gap, size = (drift.field - without.field).norm(), without.field.norm()
        assert gap <= (2e-5 if dtype == torch.float32 else 1e-12) * size
    assert not fields[1].samples.requires_grad
    assert not fields[1].data.requires_grad
    assert fields[1].resolves(1.0)  # it was the field of the nearest


def test_several_lengthscales_wait_for_the_longest_and_are_summed_as_in_batches():
    data, x = clusters(60, 0), clusters(8, 1)
    for direction in ("gradient", "displacement"):
        plain = field_of(Sphere(), "0.02,0.01", direction)
        field = NearestField(plain, data, buffer_size=60, neighbors=60)
        step(field, x, data, clusters(60, 2), torch.arange(8), progress=1.0)
        new = step(field, x, data, x, torch.arange(8), progress=1.0)
        old = step(plain, x, data, clusters(60, 2), None, progress=1.0)
        torch.testing.assert_close(new.field, old.field, atol=1e-4, rtol=1e-4)
    assert not NearestField(field_of(Sphere(), "9,0.01"), data, neighbors=20).resolves(1.0)


def test_until_the_memory_is_full_the_batch_serves():
    data, x = clusters(200, 0), clusters(16, 1)
    plain = field_of(Sphere(), "0.001")
    field = NearestField(plain, data, buffer_size=64, neighbors=20)
    for _ in range(4):
        new, old = (step(f, x, data, x, torch.arange(16), progress=1.0) for f in (field, plain))
        assert torch.equal(new.field, old.field)
    assert not torch.equal(step(field, x, data, x, torch.arange(16), progress=1.0).field, old.field)


def test_it_is_less_noisy_than_the_field_of_batches():
    """At a lengthscale as short as the data are dense, against the field of all data and many samples."""
    data, many, x = clusters(8_000, 0), clusters(8_000, 1), clusters(256, 2)
    plain = field_of(Sphere(), "0.002")
    field = NearestField(plain, data, buffer_size=8_000, neighbors=64)
    truth = step(plain, x, data, many, None).field
    step(field, x, data[:2], many, None)
    batch = step(plain, x, data[:512], many[:512], None).field

    def error(v):
        return float((v - truth).norm() / truth.norm())

    assert error(step(field, x, data[:2], many, None).field) < 0.2 * error(batch)


@pytest.mark.parametrize("settings", [{"buffer_size": 0}, {"neighbors": 0}, {"tolerance": 1.0}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ValueError, match="buffer_size and neighbors must be at least 1"):
        NearestField(field_of(Sphere()), torch.eye(3), **settings)


@pytest.mark.parametrize(
    ("m", "memory", "neighbors", "expected"),
    [
        (100, 400, 128, (32, 128)),  # both reach equally far
        (400, 100, 128, (128, 32)),
        (5, 5, 128, (5, 5)),  # all there are
        (10, 10_000, 20, (1, 20)),  # one at least
    ],
)
def test_neighbours_are_in_proportion_to_how_many_points_there_are(m, memory, neighbors, expected):
    field = NearestField(
        field_of(Euclidean(), "50"), torch.randn(m, 3), buffer_size=memory, neighbors=neighbors
    )
    assert (field.data_neighbors, field.sample_neighbors) == expected


def test_if_all_points_are_neighbours_nothing_is_lost():
    field = NearestField(field_of(Euclidean(), "50"), torch.randn(5, 3), buffer_size=5)
    assert field.tail_mass(50.0) == pytest.approx(0, abs=1e-6)
    assert field.resolves(0.0)


def test_a_resumed_run_remembers_the_samples(fit, tmp_path):
    data = clusters(100, 0, width=0.3)
    config = TrainConfig.of(steps=20, batch_size=16, save_every=7, log_every=7)

    def run(folder, stop: int | None):
        plain = field_of(Sphere(), "1:0.05")
        return fit(
            lambda: NearestField(plain, data, buffer_size=64, neighbors=30), data, config, folder, stop
        )

    (whole, weights), (stopped, same) = run(tmp_path / "a", None), run(tmp_path / "b", 17)
    assert [whole.resolves(p) for p in (0.0, 0.95)] == [False, True]
    torch.testing.assert_close(stopped.samples, whole.samples, atol=0, rtol=0)
    torch.testing.assert_close(same, weights, atol=0, rtol=0)


def test_samples_in_memory_are_on_the_sphere(sphere_cloud):
    field = NearestField(field_of(Sphere()), sphere_cloud(30), buffer_size=40)
    step(field, sphere_cloud(8, 1), sphere_cloud(8), sphere_cloud(24, 2), None, progress=0.0)
    known = field.samples[-int(field.filled) :]
    assert len(known) == 24
    assert float((known.norm(dim=1) - 1).abs().max()) < math.sqrt(torch.finfo(torch.float64).eps)
