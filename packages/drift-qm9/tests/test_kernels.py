"""Every kernel that sequences take trains by default, on the toy and on the real molecules."""

import math

import pytest
from drift_core import train
from drift_core.runs.domain import untrained
from drift_qm9.config import MoleculeConfig
from drift_qm9.domain import MoleculeDomain

KERNELS = [("laplace", None), ("gaussian", None), ("matern", None), ("matern", 0.7), ("matern", math.inf)]


@pytest.mark.parametrize(("kernel", "nu"), KERNELS)
@pytest.mark.parametrize("geometry", ["spherical", "euclidean"])
@pytest.mark.parametrize("dataset", ["toy", "qm9"])
def test_every_kernel_trains_by_default(dataset, geometry, kernel, nu, request, tmp_path):
    data_dir = None if dataset == "toy" else request.getfixturevalue("qm9_dir")
    data_settings = {"dataset": dataset, "data_dir": data_dir}
    settings = {**data_settings, "preset": "mlp-small"}
    config = MoleculeConfig.of(**settings, geometry=geometry, kernel=kernel, nu=nu)
    config.check()
    domain = MoleculeDomain()
    data = domain.load(config)
    generator, field = untrained(domain, config, data), domain.field(config, data)
    short = config.replace(steps=2, batch_size=16, num_positives=256)
    draw, lengths = domain.data_sampler(config, data), domain.condition_sampler(config, data)
    trained = train(generator, field, draw, short, tmp_path, sample_condition=lengths)
    assert all(bool(p.isfinite().all()) for p in trained.parameters())
