"""Every kernel that sequences take trains by default."""

import math

import pytest
from drift_core import train
from drift_core.runs.domain import untrained
from drift_promoter.config import PromoterConfig
from drift_promoter.domain import PromoterDomain

DOMAIN = PromoterDomain()
KERNELS = [("laplace", None), ("gaussian", None), ("matern", None), ("matern", 0.7), ("matern", math.inf)]


@pytest.mark.parametrize(("kernel", "nu"), KERNELS)
@pytest.mark.parametrize("crop", [8, 0])
@pytest.mark.parametrize("dataset", ["toy", "promoter"])
def test_every_kernel_trains_by_default(dataset, crop, kernel, nu, request, tmp_path):
    data_dir = None if dataset == "toy" else request.getfixturevalue("mini")
    config = PromoterConfig.of(dataset=dataset, data_dir=data_dir, crop=crop, kernel=kernel, nu=nu)
    config.check()
    data = DOMAIN.load(config)
    trained = train(
        untrained(DOMAIN, config, data),
        DOMAIN.field(config, data),
        DOMAIN.data_sampler(config, data),
        config.replace(steps=2, batch_size=4, num_positives=64),
        tmp_path,
        sample_condition=DOMAIN.condition_sampler(config, data),
    )
    assert all(bool(p.isfinite().all()) for p in trained.parameters())
