"""Lengthscales from flags and from data, and the fields they make."""

import math
from itertools import pairwise

import pytest
import torch
from drift_core import Batch, Euclidean, Gaussian, KernelField, Laplace, Sphere, SphericalMatern, drift
from drift_core.kernel.by_name import make_kernel
from drift_core.lengthscale import (
    Lengthscales,
    auto_lengthscale,
    checked_lengthscales,
    parse_lengthscales,
)


def test_flags():
    assert parse_lengthscales("0.2").at(0.3) == (0.2,)
    assert parse_lengthscales("0.2,0.6").at(1.0) == (0.2, 0.6)
    assert parse_lengthscales("auto,1", auto=0.4).at(0.0) == (0.4, 1.0)


def test_lengthscales_that_a_kernel_refuses_are_refused_at_once():
    tried = []
    assert checked_lengthscales("3:0.2,auto", tried.append, 1.0) == parse_lengthscales("3:0.2,auto", auto=1.0)
    assert sorted(tried) == [0.2, 1.0, 3.0]
    heat = lambda scale: SphericalMatern(scale, math.inf, dim=2)  # noqa: E731
    with pytest.raises(ValueError, match=r"0\.01"):
        checked_lengthscales("1:0.01", heat)


def test_annealing_is_geometric_and_then_holds():
    scales = parse_lengthscales("3:0.03,1")
    path = [scales.at(t / 64)[0] for t in range(65)]
    assert path[0] == 3
    assert path[16] == pytest.approx(math.sqrt(3 * 0.03))
    assert all(a >= b for a, b in pairwise(path))
    assert path[32:] == pytest.approx([0.03] * 33)
    assert {scales.at(t / 1000)[1] for t in range(1000)} == {1.0}
    assert len({scales.at(t / 1000)[0] for t in range(1000)}) <= 65  # few tables for spectral kernels


@pytest.mark.parametrize("text", ["", "0", "-1", "nan", "inf", "x", "1:2:3", "0.2,", "auto"])
def test_flags_that_are_not_lengthscales(text):
    with pytest.raises(ValueError, match="lengthscale"):
        parse_lengthscales(text)


def test_bad_schedules():
    with pytest.raises(ValueError, match="as many starts as stops"):
        Lengthscales((1.0,), (1.0, 2.0))
    with pytest.raises(ValueError, match=r"must lie in \(0, 1\]"):
        Lengthscales((1.0,), (1.0,), anneal=0.0)


def test_auto_lies_between_neighbours_and_the_whole():
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(500, 2, generator=generator)
    scale = auto_lengthscale(Euclidean(), points)
    r = torch.cdist(points, points)
    assert float(r.fill_diagonal_(9).amin(1).median()) < scale < float(r.median())
    assert auto_lengthscale(Euclidean(), 10 * points) == pytest.approx(10 * scale, rel=1e-5)
    assert auto_lengthscale(Euclidean(), points.repeat(2, 1)) == pytest.approx(scale, rel=1e-6)


def by_sorting(manifold, points):
    """Medians from point functions in float64, one pair of different rows at a time."""
    rows = [
        [float(manifold.dist(points[i], points[j])) for j in range(len(points)) if j != i]
        for i in range(len(points))
    ]
    # torch.median is the lower one of two.
    nearest, every = sorted(map(min, rows)), sorted(r for row in rows for r in row)
    return math.sqrt(nearest[(len(nearest) - 1) // 2] * every[(len(every) - 1) // 2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_auto_is_the_same_in_both_precisions_on_every_manifold(manifold, cloud, dtype):
    points = cloud(60, 3)
    expected = by_sorting(manifold, points)
    assert auto_lengthscale(manifold, points.to(dtype)) == pytest.approx(expected, rel=1e-4)
    twice = torch.cat([points, points[:25]]).to(dtype)  # coincident points count as one
    assert auto_lengthscale(manifold, twice) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_auto_in_many_dimensions(dtype):
    points = torch.randn(60, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = by_sorting(Euclidean(), points)
    assert auto_lengthscale(Euclidean(), points.to(dtype)) == pytest.approx(expected, rel=1e-5)


def test_auto_needs_two_points():
    with pytest.raises(ValueError, match="two distinct"):
        auto_lengthscale(Euclidean(), torch.ones(5, 2))


@pytest.mark.parametrize("direction", ["gradient", "displacement"])
def test_several_scales_add_dimensionless_fields(sphere_cloud, direction):
    x, data, model = sphere_cloud(6, 0), sphere_cloud(20, 1), sphere_cloud(20, 2)
    field = KernelField(Sphere(), Gaussian, parse_lengthscales("0.3,1.2"), direction)
    parts = [drift(Sphere(), Gaussian(s), x, data, model, direction=direction) for s in (0.3, 1.2)]
    by = (0.3, 1.2) if direction == "gradient" else (1 / 0.3, 1 / 1.2)
    expected = by[0] * parts[0] + by[1] * parts[1]
    torch.testing.assert_close(field(Batch(x, data, model, None)).field, expected)


def test_one_scale_is_the_plain_field(sphere_cloud):
    x, data = sphere_cloud(6, 0), sphere_cloud(20, 1)
    field = KernelField(Sphere(), Laplace, parse_lengthscales("2:0.3"))
    index = torch.arange(6)
    for progress, scale in ((0.0, 2.0), (1.0, 0.3)):
        torch.testing.assert_close(
            field(Batch(x, data, x, index, progress=progress)).field, drift(Sphere(), Laplace(scale), x, data)
        )


def test_kernels_by_name():
    assert make_kernel("spectral", 0.5, 2.5) == SphericalMatern(0.5, 2.5)
    assert make_kernel("laplace", 0.5) == Laplace(0.5)
    with pytest.raises(ValueError, match="one of laplace, gaussian, matern, spectral; got 'cauchy'"):
        make_kernel("cauchy", 0.5)


def test_widely_separated_modes_are_seen_by_a_large_scale_only():
    """From one of two far modes, a small lengthscale does not feel the other: why lengthscales matter."""
    data = torch.tensor([[0.0, 0.0], [20.0, 0.0]]).double()
    model = torch.tensor([[0.1, 0.0], [-0.1, 0.0]]).double()
    x = torch.tensor([[0.3, 0.0]]).double()
    small = drift(Euclidean(), Laplace(0.3), x, data, model)[0, 0]
    large = drift(Euclidean(), Laplace(20.0), x, data, model)[0, 0]
    assert float(small) < 1e-6 < float(large)
