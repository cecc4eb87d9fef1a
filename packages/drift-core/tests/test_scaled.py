"""Scales: unit root mean square, and lengthscales in units of the batch."""

from dataclasses import replace

import pytest
import torch
from drift_core import (
    AdaptiveField,
    Batch,
    Euclidean,
    HeldSampleSize,
    KernelField,
    Laplace,
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


def test_a_size_below_one_is_refused():
    with pytest.raises(ValueError, match=r"at least 1, got 0\.5"):
        HeldSampleSize(0.5)
