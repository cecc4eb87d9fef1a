"""Scales: unit root mean square, and lengthscales in units of the batch."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from drift_core import (
    AdaptiveField,
    Batch,
    Euclidean,
    Gaussian,
    HeldSampleSize,
    KernelField,
    Laplace,
    Matern,
    NormalizedField,
    Sphere,
    SumField,
    mean_distance,
)
from drift_core.field import diagnostics
from drift_core.lengthscale import Lengthscales
from drift_core.testing import check_field


def field_of(manifold, *scales: float) -> KernelField:
    return KernelField(manifold, Laplace, Lengthscales(scales))


def batch_of(cloud) -> Batch:
    return Batch(cloud(6, 0), cloud(9, 1), torch.cat([cloud(6, 0), cloud(4, 2)]), torch.arange(6))


def test_normalised_fields_obey_the_laws_and_have_unit_length(manifold, cloud):
    field = NormalizedField(field_of(manifold, 0.7))
    batch = batch_of(cloud)
    check_field(field, batch)
    alone = Batch(batch.x, batch.data)
    v = field(alone).field
    assert float(manifold.inner(alone.x, v, v).mean()) == pytest.approx(1)
    along = field_of(manifold, 0.7)(alone).field
    torch.testing.assert_close(v, along * (v.norm() / along.norm()))


def test_sums_of_normalised_fields_obey_the_laws(sphere_cloud):
    parts = [NormalizedField(field_of(Sphere(), scale)) for scale in (0.2, 0.7)]
    check_field(SumField(parts, [1.0, 1.0]), batch_of(sphere_cloud))


def test_the_mean_distance_is_that_of_all_pairs_and_makes_fields_independent_of_the_size_of_points():
    generator = torch.Generator().manual_seed(0)
    x, data, more = (torch.randn(n, 3, generator=generator, dtype=torch.float64) for n in (6, 9, 4))
    samples, plain = torch.cat([x, more]), field_of(Euclidean(), 0.3)
    batch = Batch(x, data, samples, torch.arange(6))
    pairs = [
        float((a - b).norm()) for i, a in enumerate(samples) for b in [*data, *samples[:i], *samples[i + 1 :]]
    ]
    assert mean_distance(plain, batch) == pytest.approx(sum(pairs) / len(pairs))
    field = AdaptiveField(plain, mean_distance)
    large = Batch(10 * x, 10 * data, 10 * samples, torch.arange(6))
    torch.testing.assert_close(10 * field(large).field, field(batch).field)


def test_fields_in_units_of_the_mean_distance_obey_the_laws(sphere_cloud):
    check_field(AdaptiveField(field_of(Sphere(), 0.2, 0.5), mean_distance), batch_of(sphere_cloud))


def test_the_effective_sample_size_is_held(sphere_cloud):
    field, batch = AdaptiveField(field_of(Sphere(), 0.3), HeldSampleSize(3.0)), batch_of(sphere_cloud)
    found = diagnostics(field, Batch(batch.x, batch.data))
    assert 2.4 < found["ess"] <= 3
    check_field(field, batch, antisymmetric=False)  # the size is that of the data
    equal = replace(batch, model=batch.data, self_index=None)
    assert float(field(equal).field.abs().max()) < 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kernel", [Laplace, Gaussian, partial(Matern, nu=1.5)])
def test_the_held_lengthscale_is_that_of_explicit_weights(manifold, cloud, kernel, dtype):
    """Samples see at most that many data points, and more at the next step of the lengthscale."""
    x, data = cloud(20, 0, dtype), cloud(30, 1, dtype)
    r = torch.stack([manifold.dist(a[None].double(), data.double()) for a in x])
    log_weight = torch.linspace(-1, 1, 30, dtype=dtype)

    def size(scale: float) -> float:
        weight = (kernel(scale).log(r) + log_weight).softmax(1)
        return float((1 / weight.square().sum(1)).mean())

    field = AdaptiveField(KernelField(manifold, kernel, Lengthscales((0.3,))), HeldSampleSize(5.0))
    (scale,) = field.at(Batch(x, data, data_log_weight=log_weight)).lengthscales.start
    assert size(scale) <= 5 * (1 + 1e-4)
    assert size(scale * 2 ** (1 / 8)) > 5 * (1 - 1e-4)
    v = field(Batch(x, data, data_log_weight=log_weight)).attraction
    plain = KernelField(manifold, kernel, Lengthscales((scale,)))
    torch.testing.assert_close(v, plain(Batch(x, data, data_log_weight=log_weight)).attraction)


def test_the_held_lengthscale_falls_as_samples_approach_the_data():
    """It takes the place of annealing: a network in training moves from far away onto the data."""
    data, field = torch.randn(64, 2, generator=torch.Generator().manual_seed(0)), field_of(Euclidean(), 1.0)
    adaptive = AdaptiveField(field, HeldSampleSize(4.0))
    scales = [adaptive.at(Batch(data + shift, data)).lengthscales.start[0] for shift in (10.0, 3.0, 0.01)]
    assert scales[0] > 1.5 * scales[1]
    assert scales[1] > 1.5 * scales[2]


def test_a_size_below_one_is_refused():
    with pytest.raises(ValueError, match=r"at least 1, got 0\.5"):
        HeldSampleSize(0.5)
