import pytest
import torch
from drift_core.field import DriftField
from drift_core.nearest import NearestField
from drift_sphere.experiment import Config, make_field, with_neighbors


def points(n: int) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(n, 3, generator=torch.Generator().manual_seed(0)), dim=1)


@pytest.mark.parametrize(
    ("rows", "settings", "nearest"),
    [
        (2_000, {}, True),
        (1_025, {}, True),
        (1_024, {}, False),  # a batch holds them all
        (2_000, {"data_batch_size": 2_000}, False),
        (2_000, {"neighbors": 0}, False),
        (2_000, {"geometry": "euclidean"}, True),
    ],
    ids=str,
)
def test_a_run_ends_with_the_nearest_of_all_data_where_batches_do_not_hold_them(rows, settings, nearest):
    config, data = Config(**settings), points(rows)
    plain = make_field(config, data)
    field = with_neighbors(config, plain, data)
    assert isinstance(field, NearestField if nearest else DriftField)
    if nearest:
        assert (len(field.samples), field.sample_neighbors, field.data_neighbors) == (4 * rows, 128, 32)
        assert not field.resolves(0.0)
        assert field.resolves(1.0)


def test_memory_is_bounded():
    config = Config()
    data = points(40_000)
    field = with_neighbors(config, make_field(config, data), data)
    assert len(field.samples) == 65_536
    assert (field.sample_neighbors, field.data_neighbors) == (128, 78)


def test_lengthscales_are_annealed_over_the_fraction_that_is_given():
    scales = make_field(Config(anneal=0.25, lengthscale="2:0.5"), points(50)).lengthscales
    assert scales.at(0.125) == (1.0,)
    assert scales.at(0.25) == (0.5,)


@pytest.mark.parametrize("anneal", [0.0, -0.1, 1.5, float("nan")])
def test_a_fraction_that_is_none_is_refused(anneal):
    with pytest.raises(ValueError, match="--anneal must lie in"):
        Config(anneal=anneal)


def test_the_default_lengthscale_is_one_that_the_kernel_takes():
    data = points(50)
    for kernel, nu, end in (("laplace", 1.5, 0.002), ("spectral", 1.5, 0.02), ("spectral", 2.5, 0.02)):
        field = make_field(Config(kernel=kernel, nu=nu), data)
        assert field.lengthscales.at(1.0) == pytest.approx((end,))
