import math

import pytest
import torch
from drift_core import Batch, KernelField, NearestField, cap_step, train
from drift_core.training.loop import resample
from drift_sphere.experiment import Config, load_split, make_field, make_generator, with_neighbors


def points(n: int) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(n, 3, generator=torch.Generator().manual_seed(0)), dim=1)


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
    config, data = Config(**settings), points(rows)
    plain = make_field(config, data)
    field = with_neighbors(config, plain, data)
    assert isinstance(field, NearestField if nearest else KernelField)
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


KERNELS = [
    ("laplace", 1.5, 0.002),
    ("gaussian", 1.5, 0.002),
    ("matern", 1.5, 0.002),
    ("matern", 0.7, 0.002),
    ("matern", math.inf, 0.002),
    ("spectral", 0.5, 0.02),
    ("spectral", 2.5, 0.02),
    ("spectral", math.inf, 0.05),
]


@pytest.mark.parametrize(("kernel", "nu", "end"), KERNELS)
@pytest.mark.parametrize("dataset", ["toy", "volcano", "earthquake", "fire", "flood"])
def test_every_kernel_trains_on_every_data_set_by_default(dataset, kernel, nu, end, request, tmp_path):
    data_dir = None if dataset == "toy" else request.getfixturevalue("earth_dir")
    config = Config(dataset=dataset, kernel=kernel, nu=nu, data_dir=data_dir, save_every=2)
    assert config.lengthscale == f"2:{end}"
    split = load_split(config)
    field = with_neighbors(config, make_field(config, split.train), split.train)
    config.steps, config.batch_size = 2, 64
    trained = train(make_generator(config), field, resample(split.train), config, tmp_path)
    assert all(bool(p.isfinite().all()) for p in trained.parameters())


@pytest.mark.parametrize(("kernel", "nu", "end"), [case for case in KERNELS if case[0] != "spectral"])
@pytest.mark.parametrize("dataset", ["toy", "volcano", "earthquake", "fire", "flood"])
def test_every_kernel_trains_in_straight_distances_too(dataset, kernel, nu, end, request, tmp_path):
    data_dir = None if dataset == "toy" else request.getfixturevalue("earth_dir")
    config = Config(dataset=dataset, geometry="euclidean", kernel=kernel, nu=nu, data_dir=data_dir)
    assert config.lengthscale == f"2:{end}"
    split = load_split(config)
    field = with_neighbors(config, make_field(config, split.train), split.train)
    config.steps, config.batch_size = 2, 64
    trained = train(make_generator(config), field, resample(split.train), config, tmp_path)
    assert all(bool(p.isfinite().all()) for p in trained.parameters())


@pytest.mark.parametrize("dataset", ["toy", "volcano", "earthquake", "fire", "flood"])
def test_auto_lengthscales_leave_steps_uncapped(dataset, request):
    """A lengthscale of 1e-4 of the right one made 99.6% of the steps on earthquakes too long."""
    data_dir = None if dataset == "toy" else request.getfixturevalue("earth_dir")
    config = Config(dataset=dataset, data_dir=data_dir, lengthscale="auto")
    data = load_split(config).train
    field = make_field(config, data)
    x = make_generator(config).sample(1024, torch.Generator().manual_seed(0))
    v = field(Batch(x, data[:1024], x, torch.arange(1024))).field
    _, clipped = cap_step(field.manifold, x, config.step_size * v)
    assert float(clipped.float().mean()) < 0.01


def test_codes_are_a_setting():
    assert make_generator(Config()).code.num_embeddings == 2_048
    assert make_generator(Config(codes=32)).code.num_embeddings == 32
    assert make_generator(Config(codes=0)).code is None


@pytest.mark.parametrize(
    ("codes", "message"),
    [(-1, "--codes must be at least 0, got -1"), (2**20 + 1, "--codes must be at most 1048576, got 1048577")],
)
def test_numbers_of_codes_that_are_refused(codes, message):
    with pytest.raises(ValueError, match=message):
        Config(codes=codes)


def test_the_default_generator_is_what_it_was():
    """Sums of the weights and of the draws of a seed, as they were before --codes."""
    generator = make_generator(Config(seed=3))
    weights = sum(float(p.detach().double().abs().sum()) for p in generator.parameters())
    draws = generator.sample(1_000, torch.Generator().manual_seed(1))
    assert [weights, float(draws.double().abs().sum())] == pytest.approx(
        [212114.106458, 1506.013308], rel=1e-6
    )
