"""Every kernel that sequences take trains by default."""

import math

import pytest
from drift_core import train
from drift_promoter.experiment import Config, conditions, make_field, make_generator, positives

KERNELS = [("laplace", 1.5), ("gaussian", 1.5), ("matern", 1.5), ("matern", 0.7), ("matern", math.inf)]


@pytest.mark.parametrize(("kernel", "nu"), KERNELS)
@pytest.mark.parametrize("stretch", [8, 0])
def test_every_kernel_trains_by_default(stretch, kernel, nu, toy, tmp_path):
    config = Config(stretch=stretch, kernel=kernel, nu=nu)
    field = make_field(config, toy)
    config.steps, config.batch_size, config.data_batch_size = 2, 4, 64
    trained = train(
        make_generator(config, toy),
        field,
        positives(config, toy),
        config,
        tmp_path,
        sample_condition=conditions(config, toy),
    )
    assert all(bool(p.isfinite().all()) for p in trained.parameters())
