"""What the settings of a run make: its field, its generator, and what is refused."""

import math

import pytest
import torch
from drift_core import (
    BalancedField,
    Batch,
    Euclidean,
    Gaussian,
    KernelField,
    Laplace,
    Matern,
    PullbackField,
    SumField,
)
from drift_core.training.loop import Field
from drift_qm9.data import Molecules
from drift_qm9.experiment import Config, make_field, make_generator, positives
from drift_simplex import CategoricalField, FisherRao
from torch import Generator


@pytest.fixture
def little() -> Molecules:
    """Random strings over the letters of molecules."""
    tokens = torch.randint(35, (60, 12), generator=Generator().manual_seed(0))
    return Molecules(tokens[:40], tokens[40:50], tokens[50:])


def test_a_run_drifts_by_windows_or_whole_sequences(little):
    field = make_field(Config(window=4, window_lengthscale="2:0.4"), little)
    assert isinstance(field, SumField)
    window = field.fields[0]
    assert isinstance(window, PullbackField)
    assert window.map(little.train).shape == (40, 4)
    assert (window.field.product, window.field.vocab_size) == (True, 35)
    assert (window.field.lengthscales.start, window.field.lengthscales.stop) == ((2.0,), (0.4,))
    settings = {"lengthscale": "0.3,3", "direction": "displacement", "balance": 0.0}
    whole = make_field(Config(**settings), little)
    assert isinstance(whole, CategoricalField)
    assert (whole.product, whole.direction, whole.lengthscales.start) == (False, "displacement", (0.3, 3.0))
    for made in (field, whole):
        assert isinstance(made, Field)
        assert isinstance(made.manifold, FisherRao)


def test_molecules_are_balanced_by_their_numbers(little):
    config = Config(balance=0.6)
    field = make_field(config, little)
    assert isinstance(field, BalancedField)
    assert field.until == 0.6
    assert torch.equal(field.data, little.train)
    numbers = positives(config, little)(100, Generator())
    assert torch.equal(numbers, torch.arange(40))
    plain = make_field(Config(balance=0.0), little)
    x = FisherRao().projx(torch.rand(3, 12, 35, generator=Generator().manual_seed(0)))
    pulls = [
        f(Batch(x, d, x, torch.arange(3), progress=1.0)) for f, d in ((field, numbers), (plain, little.train))
    ]
    torch.testing.assert_close(*(pull.field for pull in pulls))  # at the end


@pytest.mark.parametrize("off", [{"window": 4}, {"codes": 0}, {"geometry": "euclidean"}, {"balance": 0.0}])
def test_what_is_not_balanced_drifts_to_molecules(little, off):
    config = Config(**off)
    assert config.balance == 0
    assert not isinstance(make_field(config, little), BalancedField)
    assert positives(config, little)(100, Generator()).shape[:2] == (40, 12)


def test_settings_follow_one_another():
    assert (Config().position_noise, Config(codes=0).position_noise) == (0, 4)
    assert Config(position_noise=2).position_noise == 2
    assert (Config().preset, Config(codes=0).preset, Config(preset="base").preset) == ("mlp", "small", "base")
    euclidean = Config(geometry="euclidean", window=4)
    assert (euclidean.window, euclidean.output) == (0, "softmax")
    assert (Config().output, Config(output="softmax").output) == ("abs_normalize", "softmax")


def test_the_euclidean_baseline_is_of_whole_sequences_in_flat_space(little):
    config = Config(geometry="euclidean", lengthscale="1", direction="displacement")
    field = make_field(config, little)
    assert isinstance(field, KernelField)
    assert isinstance(field.manifold.base, Euclidean)
    generator = make_generator(config, little)
    x = generator(generator.latent(5, Generator()))
    torch.testing.assert_close(x.sum(-1), torch.ones(5, 12))  # distributions, not their roots
    data = positives(config, little)(100, Generator())
    assert field(Batch(x, data, x, torch.arange(5))).field.shape == x.shape


@pytest.mark.parametrize(
    ("flags", "kernel"),
    [
        ({"kernel": "laplace"}, Laplace(0.4)),
        ({"kernel": "gaussian"}, Gaussian(0.4)),
        ({"kernel": "matern", "nu": 2.5}, Matern(0.4, 2.5)),
    ],
)
def test_the_kernel_is_that_of_the_flags(little, flags, kernel):
    windows = make_field(Config(window=8, window_lengthscale="0.4", **flags), little)
    assert windows.fields[0].field.kernel(0.4) == kernel
    assert make_field(Config(lengthscale="0.4", balance=0.0, **flags), little).kernel(0.4) == kernel


@pytest.mark.parametrize("kernel", ["laplace", "gaussian"])
@pytest.mark.parametrize(("geometry", "apart"), [("spherical", math.pi / 2), ("euclidean", math.sqrt(2))])
def test_the_automatic_lengthscale_spreads_log_weights_of_the_data_by_one(toy, kernel, geometry, apart):
    """Seen from one another; a position that differs is pi / 2 away on the sphere, sqrt 2 in R^35."""
    config = Config(geometry=geometry, kernel=kernel, lengthscale="auto", balance=0.0)
    (scale,) = make_field(config, toy).lengthscales.start
    rows = torch.randperm(len(toy.train), generator=Generator().manual_seed(1))[:1500]
    tokens = toy.train[rows]
    r = apart * (tokens[:200, None] != tokens[200:]).sum(-1).double().sqrt()
    log_weight = -r / scale if kernel == "laplace" else -(r**2) / (2 * scale**2)
    spread = (log_weight - log_weight.mean(1, keepdim=True)).square().mean().sqrt()
    assert float(spread) == pytest.approx(1, abs=0.07)


@pytest.mark.parametrize("output", ["abs_normalize", "softmax"])
def test_the_generator_is_that_of_the_flags(little, output):
    flags = {"output": output, "codes": 0, "global_noise": 5, "position_noise": 2}
    generator = make_generator(Config(**flags), little)
    assert (generator.output, generator.latent_dim, generator.length) == (output, 5 + 24, 12)
    assert (generator.codebook, len(generator.blocks)) == (None, 4)
    again = make_generator(Config(**flags), little)
    assert torch.equal(generator.logits.weight, again.logits.weight)
    other = make_generator(Config(**flags, seed=1), little)
    assert not torch.equal(generator.logits.weight, other.logits.weight)
    coded = make_generator(Config(codes=9), little)
    assert (coded.codebook.size, len(coded.blocks), coded.latent_dim) == (9, 0, 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"window": 1}, "--window"),
        ({"window_lengthscale": "auto"}, "--window-lengthscale auto: auto is for --lengthscale"),
        ({"window_lengthscale": "-1"}, "-1"),
        ({"lengthscale": "short"}, "short"),
        ({"lengthscale": "0"}, "0"),
        ({"codes": -1}, "--codes"),
        ({"codes": 0, "preset": "mlp"}, "--preset mlp reads codes"),
        ({"balance": 1.0}, r"--balance must lie in \[0, 1\), got 1.0"),
        ({"global_noise": 0}, "--global-noise"),
        ({"position_noise": -2}, "--position-noise"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Config(**settings)


def test_a_kernel_of_one_sphere_is_refused(little):
    with pytest.raises(ValueError, match="--kernel spectral"):
        make_field(Config(kernel="spectral"), little)


def test_windows_wider_than_the_strings_are_the_strings(little):
    x = FisherRao().projx(torch.rand(3, 12, 35, generator=Generator().manual_seed(0)))
    wide, whole = (make_field(Config(window=w), little) for w in (100, 12))
    pulls = [field(Batch(x, little.train, x, torch.arange(3))).field for field in (wide, whole)]
    torch.testing.assert_close(*pulls)
