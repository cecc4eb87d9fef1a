"""Every kernel that sequences take trains by default."""

import math

import pytest
from drift_core import train
from drift_promoter.experiment import Config, conditions, load_data, make_field, make_generator, positives

KERNELS = [("laplace", 1.5), ("gaussian", 1.5), ("matern", 1.5), ("matern", 0.7), ("matern", math.inf)]


@pytest.mark.parametrize(("kernel", "nu"), KERNELS)
@pytest.mark.parametrize("crop", [8, 0])
@pytest.mark.parametrize("dataset", ["toy", "promoter"])
def test_every_kernel_trains_by_default(dataset, crop, kernel, nu, request, tmp_path):
    data_dir = None if dataset == "toy" else request.getfixturevalue("mini")
    config = Config(dataset=dataset, data_dir=data_dir, crop=crop, kernel=kernel, nu=nu)
    data = load_data(config)
    field = make_field(config, data)
    config.steps, config.batch_size, config.num_positives = 2, 4, 64
    trained = train(
        make_generator(config, data),
        field,
        positives(config, data),
        config,
        tmp_path,
        sample_condition=conditions(config, data),
    )
    assert all(bool(p.isfinite().all()) for p in trained.parameters())
