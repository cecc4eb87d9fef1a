"""Every kernel that sequences take trains by default, on the toy and on the real molecules."""

import math

import pytest
from drift_core import train
from drift_qm9.experiment import Config, load_data, make_field, make_generator, positives

KERNELS = [("laplace", 1.5), ("gaussian", 1.5), ("matern", 1.5), ("matern", 0.7), ("matern", math.inf)]


@pytest.mark.parametrize(("kernel", "nu"), KERNELS)
@pytest.mark.parametrize("geometry", ["spherical", "euclidean"])
@pytest.mark.parametrize("dataset", ["toy", "qm9"])
def test_every_kernel_trains_by_default(dataset, geometry, kernel, nu, request, tmp_path):
    data_dir = None if dataset == "toy" else request.getfixturevalue("qm9_dir")
    balance = 0.7 if geometry == "spherical" else 0.0  # reweighting is for the sphere
    settings = {"dataset": dataset, "data_dir": data_dir, "geometry": geometry, "balance": balance}
    config = Config(**settings, kernel=kernel, nu=nu)
    data = load_data(config)
    field = make_field(config, data)
    config.steps, config.batch_size, config.num_positives = 2, 16, 256
    trained = train(make_generator(config, data), field, positives(config, data), config, tmp_path)
    assert all(bool(p.isfinite().all()) for p in trained.parameters())
