import math
from pathlib import Path

import pytest
import torch
from drift_core import Batch, KernelField, NearestField, cap_step, train
from drift_core.runs.domain import untrained
from drift_sphere import SphereGenerator
from drift_sphere.data import Points
from drift_sphere.domain import SphereConfig, SphereDomain, batch_field

DOMAIN = SphereDomain()


def points(n: int) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(n, 3, generator=torch.Generator().manual_seed(0)), dim=1)


def of(train: torch.Tensor) -> Points:
    return Points(train, train[:10], train[:10])


@pytest.mark.parametrize(
    ("rows", "settings", "nearest"),
    [
        (2_000, {}, True),
        (1_025, {}, True),
        (1_024, {}, False),  # a batch holds them all
        (2_000, {"num_positives": 2_000}, False),
        (2_000, {"neighbors": 0}, False),
        (2_000, {"geometry": "euclidean"}, True),
    ],
    ids=str,
)
def test_a_run_ends_with_the_nearest_of_all_data_where_batches_do_not_hold_them(rows, settings, nearest):
    field = DOMAIN.field(SphereConfig.of(**settings), of(points(rows)))
    assert isinstance(field, NearestField if nearest else KernelField)
    if nearest:
        assert (len(field.samples), field.sample_neighbors, field.data_neighbors) == (4 * rows, 128, 32)
        assert not field.resolves(0.0)
        assert field.resolves(1.0)


def test_memory_is_bounded():
    field = DOMAIN.field(SphereConfig(), of(points(40_000)))
    assert len(field.samples) == 65_536
    assert (field.sample_neighbors, field.data_neighbors) == (128, 78)


def test_lengthscales_are_annealed_over_the_fraction_that_is_given():
    scales = batch_field(SphereConfig.of(anneal=0.25, lengthscale="2:0.5"), points(50)).lengthscales
    assert scales.at(0.125) == (1.0,)
    assert scales.at(0.25) == (0.5,)


@pytest.mark.parametrize("anneal", [0.0, -0.1, 1.5, float("nan")])
def test_a_fraction_that_is_none_is_refused(anneal):
    with pytest.raises(ValueError, match="`anneal` must lie in"):
        SphereConfig.of(anneal=anneal).check()


KERNELS = [
    ("laplace", None, 0.002),
    ("gaussian", None, 0.002),
    ("matern", 1.5, 0.002),
    ("matern", 0.7, 0.002),
    ("matern", math.inf, 0.002),
    ("spectral", 0.5, 0.02),
    ("spectral", 2.5, 0.02),
    ("spectral", math.inf, 0.05),
]


def trains(config: SphereConfig, out: Path) -> None:
    """Two steps with all else by default leave finite weights."""
    config.check()
    data = DOMAIN.load(config)
    field, config = DOMAIN.field(config, data), config.replace(steps=2, batch_size=64, save_every=2)
    trained = train(untrained(DOMAIN, config, data), field, DOMAIN.data_sampler(config, data), config, out)
    assert all(bool(p.isfinite().all()) for p in trained.parameters())


@pytest.mark.parametrize(("kernel", "nu", "end"), KERNELS)
@pytest.mark.parametrize("dataset", ["toy", "volcano", "earthquake", "fire", "flood"])
def test_every_kernel_trains_on_every_data_set_by_default(dataset, kernel, nu, end, request, tmp_path):
    data_dir = None if dataset == "toy" else request.getfixturevalue("earth_dir")
    config = SphereConfig.of(dataset=dataset, kernel=kernel, nu=nu, data_dir=data_dir)
    assert config.kernel.scales == f"2:{end}"
    trains(config, tmp_path)


@pytest.mark.parametrize(("kernel", "nu", "end"), [case for case in KERNELS if case[0] != "spectral"])
@pytest.mark.parametrize("dataset", ["toy", "volcano", "earthquake", "fire", "flood"])
def test_every_kernel_trains_in_straight_distances_too(dataset, kernel, nu, end, request, tmp_path):
    data_dir = None if dataset == "toy" else request.getfixturevalue("earth_dir")
    config = SphereConfig.of(dataset=dataset, geometry="euclidean", kernel=kernel, nu=nu, data_dir=data_dir)
    assert config.kernel.scales == f"2:{end}"
    trains(config, tmp_path)


@pytest.mark.parametrize("dataset", ["toy", "volcano", "earthquake", "fire", "flood"])
def test_auto_lengthscales_leave_steps_uncapped(dataset, request):
    """A lengthscale of 1e-4 of the right one made 99.6% of the steps on earthquakes too long."""
    data_dir = None if dataset == "toy" else request.getfixturevalue("earth_dir")
    config = SphereConfig.of(dataset=dataset, data_dir=data_dir, lengthscale="auto")
    split = DOMAIN.load(config)
    data, field = split.train, batch_field(config, split.train)
    x = untrained(DOMAIN, config, split).sample(1024, torch.Generator().manual_seed(0))
    v = field(Batch(x, data[:1024], x, torch.arange(1024))).field
    _, clipped = cap_step(field.manifold, x, config.optimizer.step_size * v)
    assert float(clipped.float().mean()) < 0.01


def generator(**settings) -> SphereGenerator:
    return untrained(DOMAIN, SphereConfig.of(**settings), of(points(20)))


def test_the_codebook_is_a_setting():
    assert generator().codebook.num_embeddings == 2_048
    assert generator(codebook_size=32).codebook.num_embeddings == 32
    assert generator(codebook_size=0).codebook is None


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (-1, "`codebook_size` must be at least 0, got -1"),
        (2**20 + 1, "`codebook_size` must be at most 1048576, got 1048577"),
    ],
)
def test_codebooks_that_are_refused(size, message):
    with pytest.raises(ValueError, match=message):
        SphereConfig.of(codebook_size=size).check()


def test_the_default_generator_is_what_it_was():
    """Sums of the weights and of the draws of a seed, as they were when the figures were measured."""
    seeded = generator(seed=3)
    weights = sum(float(p.detach().double().abs().sum()) for p in seeded.parameters())
    draws = seeded.sample(1_000, torch.Generator().manual_seed(1))
    assert [weights, float(draws.double().abs().sum())] == pytest.approx(
        [212114.106458, 1506.013308], rel=1e-6
    )


def test_recipes_are_settings_that_can_be_used(tmp_path):
    assert set(DOMAIN.recipes) == {"toy", "quick", "earth", "paper"}
    for settings in DOMAIN.recipes.values():
        trains(SphereConfig().replace(**settings), tmp_path / str(len(settings)))
    paper = SphereConfig().replace(**DOMAIN.recipes["paper"])
    assert isinstance(DOMAIN.field(paper, of(points(2_000))), KernelField)
    assert DOMAIN.default_recipe(SphereConfig()) == "toy"
    assert DOMAIN.default_recipe(SphereConfig.of(dataset="fire")) == "earth"
    assert DOMAIN.default_recipe(SphereConfig.of(data=Path("a.csv"))) == "quick"
