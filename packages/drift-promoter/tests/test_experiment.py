"""A run's parts follow from its settings, and its report is what its generator deserves."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from drift_core import Batch, Euclidean, Field, Gaussian, KernelField, Laplace, Matern
from drift_promoter.data import Promoters, Windows
from drift_promoter.experiment import (
    Config,
    Sampler,
    conditions,
    draw,
    make_field,
    make_generator,
    positives,
    save,
    score,
    validation,
)
from drift_promoter.field import WholeField
from drift_promoter.stretches import StretchField
from drift_simplex import CategoricalField, FisherRao
from torch import Generator


def windows(n: int, length: int = 16, seed: int = 0, tracks: int = 2) -> Windows:
    rng = np.random.default_rng(seed)
    bases = rng.integers(4, size=(n, length), dtype=np.uint8)
    signal = rng.random((n, length, 2)).astype(np.float16)
    strand = ["+-"[i % 2] for i in range(n)]
    chrom = [f"chr{8 + i % 2}" for i in range(n)]
    return Windows(bases, signal, chrom, np.arange(n) * 100, strand, margin=0, tracks=tracks)


@pytest.fixture
def little() -> Promoters:
    """40 windows to train on, none to validate on, and 6 to test on."""
    return Promoters(windows(40), windows(0), windows(6, seed=1))


@pytest.fixture
def perfect(toy) -> Sampler:
    """A sampler that finds the real sequence of each signal."""
    generator, known = make_generator(Config(), toy), {}
    for part in (toy.val, toy.test):
        rows = torch.arange(len(part))
        keys = [signal.numpy().tobytes() for signal in part.signals(rows)]
        known |= dict(zip(keys, part.tokens(rows), strict=True))

    def sample(n, random, signal):
        return torch.stack([known[one.numpy().tobytes()] for one in signal])

    generator.sample = sample
    return Sampler(generator, toy)


def test_a_run_drifts_by_stretches_or_whole_sequences(little):
    config = Config(stretch=6, stretch_lengthscale="1:0.4", signal_lengthscale=0.25)
    field = make_field(config, little)
    assert isinstance(field, StretchField)
    assert (field.length, field.field.product, field.data) == (6, True, little.train)
    assert (field.field.lengthscales.start, field.field.lengthscales.stop) == ((1.0,), (0.4,))
    assert field.similarity.kernel == Laplace(0.25)
    whole = make_field(Config(stretch=0, lengthscale="0.3,3"), little)
    assert isinstance(whole, WholeField)
    assert isinstance(whole.field, CategoricalField)
    assert not whole.field.product
    assert whole.field.lengthscales.start == (0.3, 3.0)
    for made in (field, whole):
        assert isinstance(made, Field)
        assert isinstance(made.manifold, FisherRao)


def test_data_other_than_toy_repel_and_are_read_as_letters_that_are_drawn(little):
    toy, real = Config(), Config(dataset="promoter", signal_lengthscale=0.25, seed=3)
    assert (toy.repel, toy.readout, toy.signal_kinds) == ("letters", "likeliest", 0)
    assert (real.repel, real.readout, real.signal_kinds) == ("drawn", "drawn", 16)
    field = make_field(real, little)
    assert (field.repel, field.kinds, field.seed) == ("drawn", 16, 3)
    assert make_generator(real, little).readout == "drawn"
    assert make_generator(toy, little).readout == "likeliest"
    for flags in ({"stretch": 0}, {"geometry": "euclidean"}, {"repel": "points"}):
        assert Config(dataset="promoter", **flags).readout == "likeliest"
    make_field(Config(dataset="promoter", stretch=12), little)  # too long to be counted
    make_field(Config(dataset="promoter", repel="points"), little)


def test_the_euclidean_baseline_is_of_whole_sequences_in_flat_space(little):
    config = Config(geometry="euclidean", lengthscale="1", direction="displacement")
    field = make_field(config, little)
    assert isinstance(field, WholeField)
    assert isinstance(field.field, KernelField)
    assert isinstance(field.manifold.base, Euclidean)
    assert field.field.direction == "displacement"
    generator = make_generator(config, little)
    x = generator(generator.latent(3, Generator()), little.test.signals(torch.arange(3)))
    torch.testing.assert_close(x.sum(-1), torch.ones(3, 16))  # distributions, not their roots
    assert (
        field(Batch(x, positives(config, little)(5, Generator()), x, torch.arange(3))).field.shape == x.shape
    )


@pytest.mark.parametrize(
    ("flags", "kernel"),
    [
        ({"kernel": "laplace"}, Laplace(0.4)),
        ({"kernel": "gaussian"}, Gaussian(0.4)),
        ({"kernel": "matern", "nu": 2.5}, Matern(0.4, 2.5)),
    ],
)
def test_kernel_and_direction_are_the_fields_own(little, flags, kernel):
    given = {"lengthscale": "0.4", "stretch_lengthscale": "0.4", "direction": "displacement", **flags}
    for stretch in (0, 8):
        field = make_field(Config(stretch=stretch, **given), little).field
        assert field.kernel(0.4) == kernel
        assert field.direction == "displacement"


@pytest.mark.parametrize("stretch", [0, 8])
def test_without_conditions_no_signal_is_asked_for(little, stretch):
    config = Config(condition=False, stretch=stretch)
    assert conditions(config, little) is None
    assert make_field(config, little).similarity is None
    assert not make_generator(config, little).conditional
    tokens = Sampler(make_generator(config, little), little).generate(torch.zeros(4, 16, 2), Generator())
    assert tokens.shape == (4, 16)
    given = conditions(Config(), little)
    assert given(5, Generator()).shape == (5, 16, 2)


@pytest.mark.parametrize(
    "flags",
    [
        {"stretch": 0, "lengthscale": "1"},
        {"geometry": "euclidean", "lengthscale": "1"},
        {"repel": "letters"},
        {"repel": "drawn", "signal_kinds": 4},
    ],
    ids=str,
)
@pytest.mark.parametrize("tracks", [1, 2])
def test_the_other_strand_counts_where_there_are_two_tracks_alone(flags, tracks):
    """With one, data that differ in the other track give the same field and the same samples."""
    config = Config(signal_tracks=tracks, signal_lengthscale=0.2, **flags)
    data = Promoters(windows(40, tracks=tracks), windows(0, tracks=tracks), windows(6, seed=1, tracks=tracks))
    changed = [replace(part, signal=part.signal.copy()) for part in (data.train, data.test)]
    for part in changed:
        part.signal[..., 1] = part.signal[..., 1][:, ::-1]
    fields, tokens = [], []
    for some in (data, Promoters(changed[0], data.val, changed[1])):
        generator, random = make_generator(config, some).double(), Generator().manual_seed(0)
        assert generator.input.in_channels == config.position_noise + tracks
        condition = conditions(config, some)(8, random).double()
        assert condition.shape == (8, 16, tracks)
        x = soft(8, 16, config.geometry)
        places = positives(config, some)(30, random)
        batch = Batch(x, places, x, torch.arange(8), condition=condition, model_condition=condition)
        fields.append(make_field(config, some)(batch).field)
        tokens.append(draw(Sampler(generator, some), 50, seed=0).tokens)
    assert torch.equal(*fields) == torch.equal(*tokens) == (tracks == 1)


def soft(n: int, length: int, geometry: str) -> torch.Tensor:
    """Points between the letters."""
    p = torch.randn(n, length, 4, generator=Generator().manual_seed(1), dtype=torch.float64).softmax(-1)
    return p if geometry == "euclidean" else p.sqrt()


def test_places_are_of_stretches_where_the_field_is(little):
    starts = positives(Config(stretch=6), little)(500, Generator())[:, 2]
    assert set(starts.tolist()) == set(range(11))
    assert not positives(Config(stretch=0), little)(500, Generator())[:, 2].any()


@pytest.mark.parametrize("kernel", ["laplace", "gaussian"])
@pytest.mark.parametrize(("geometry", "apart"), [("spherical", math.pi / 2), ("euclidean", math.sqrt(2))])
def test_the_automatic_lengthscale_spreads_log_weights_by_one(toy, kernel, geometry, apart):
    """Seen from training windows; a position that differs is pi / 2 away on the sphere, sqrt 2 in R^4."""
    config = Config(stretch=0, geometry=geometry, kernel=kernel, lengthscale="auto")
    (scale,) = make_field(config, toy).field.lengthscales.start
    tokens = toy.train.tokens(torch.arange(1500))
    differing = (tokens[:200, None] != tokens[200:]).sum(-1).double()
    r = apart * differing.sqrt()
    log_weight = -r / scale if kernel == "laplace" else -(r**2) / (2 * scale**2)
    spread = (log_weight - log_weight.mean(1, keepdim=True)).square().mean().sqrt()
    assert float(spread) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"kernel": "spectral"}, "--kernel spectral lives on one sphere"),
        ({"kernel": "matern", "nu": -1.0}, "nu must be .*, got -1.0"),
        ({"signal_lengthscale": -0.1}, "--signal-lengthscale must be positive, got -0.1"),
        ({"signal_lengthscale": 0.0}, "--signal-lengthscale must be positive, got 0.0"),
        ({"signal_lengthscale": math.nan}, "--signal-lengthscale must be positive, got nan"),
        ({"lengthscale": "long"}, "lengthscale 'long': expected a positive number"),
        ({"lengthscale": "-1", "stretch": 0}, "lengthscale '-1': expected a positive number"),
        ({"stretch_lengthscale": "0.5,wide"}, "lengthscale '0.5,wide': expected .* 'wide' is none"),
        ({"stretch_lengthscale": "auto"}, "--stretch-lengthscale auto: auto is for --lengthscale"),
        ({"stretch": 1}, "--stretch must be at least 2, got 1"),
        ({"stretch": -8}, "--stretch must be at least 2, got -8"),
        ({"stretch": 17}, "2 to 16 base pairs, got 17"),
        ({"max_step": 4.0}, "max_step must lie in .*, got 4.0"),
        ({"global_noise": 0}, "--global-noise must be at least 1, got 0"),
        ({"position_noise": 0}, "--position-noise must be at least 1, got 0"),
        ({"batch_size": 1}, "--batch-size must be at least 2, got 1"),
        ({"signal_kinds": 4}, "signal kinds need repel drawn, .*; got 4, letters and 8"),
        ({"signal_kinds": 4, "repel": "drawn", "stretch": 11}, "at most 10 base pairs; got 4, drawn and 11"),
        (
            {"signal_tracks": 1, "condition": False},
            "--signal-tracks is for conditions; --no-condition leaves",
        ),
        ({"signal_kinds": -1}, "--signal-kinds must be at least 0, got -1"),
        ({"words": -1}, "--words must be at least 0, got -1"),
        ({"words": 9, "word_length": 0}, "--word-length must be at least 1, got 0"),
        ({"words": 9, "word_length": 5}, "--word-length must divide the length of a sequence, 16; got 5"),
    ],
    ids=str,
)
def test_settings_that_are_refused(little, flags, message):
    with pytest.raises(ValueError, match=message):
        make_generator(Config(**flags), little) and make_field(Config(**flags), little)


def test_a_run_has_words_if_asked(little):
    assert make_generator(Config(), little).words is None
    generator = make_generator(Config(words=9, word_length=4), little)
    assert (generator.words.num_embeddings, generator.places) == (9, 4)


def test_the_seed_alone_determines_the_untrained_generator(little):
    state = torch.get_rng_state()
    first, again, other = (
        torch.cat([p.flatten() for p in make_generator(Config(seed=seed), little).parameters()])
        for seed in (3, 3, 4)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_without_validation_windows_nothing_is_validated(little):
    assert validation(Config(), little) is None
    with pytest.raises(ValueError, match="no windows to evaluate on"):
        score(Config(), Sampler(make_generator(Config(), little), little), draws=1, on="val")


def test_validation_prefers_the_data_and_says_the_same_again(perfect, toy):
    distance = validation(Config(), toy)
    best, untrained = distance(perfect.generator), distance(make_generator(Config(), toy))
    assert 0 <= best < 0.1  # 512 of the 1,000 windows against all of them, and every motif in its place
    assert untrained > 1.5
    assert distance(make_generator(Config(), toy)) == untrained


def test_a_perfect_sampler_scores_at_the_floor(perfect):
    scores = score(Config(), perfect, draws=1)
    assert scores["kmer_correlation"].value >= scores["kmer_correlation"].floor
    assert scores["motif_placement"].value > 0.999
    assert scores["motif_placement_shuffled"].value < 0.05
    assert scores["conditioning"].value == pytest.approx(scores["conditioning"].floor, abs=0.15)


def test_samples_are_determined_by_their_seed_and_named_by_their_windows(little, tmp_path):
    sampler = Sampler(make_generator(Config(), little), little)
    first, again, other = (draw(sampler, 4, seed) for seed in (5, 5, 6))
    assert torch.equal(first.tokens, again.tokens)
    assert first.names == again.names
    assert not torch.equal(first.tokens, other.tokens)
    places = {name.rsplit(" ", 1)[0] for name in first.names}
    assert len(places) == 4
    assert places <= set(little.test.names(torch.arange(6)))
    save(tmp_path / "four.fasta", first)
    headers = [line for line in Path(tmp_path / "four.fasta").read_text().split("\n") if line[:1] == ">"]
    assert headers == [f">{name}" for name in first.names]


def test_more_samples_than_test_windows_take_their_signals_in_turn(little):
    names = draw(Sampler(make_generator(Config(), little), little), 15, 0).names
    assert len(set(names)) == 15  # FASTA readers want different headers
    places = [name.rsplit(" ", 1)[0] for name in names]
    assert [places.count(name) for name in little.test.names(torch.arange(6))].count(2) == 3
    assert places[:6] == places[6:12]
    assert len(set(places)) == 6


def test_samples_are_generated_for_the_signals_that_name_them(perfect):
    samples = draw(perfect, 30, seed=1)
    test = perfect.data.test
    real = dict(zip(test.names(torch.arange(len(test))), test.tokens(torch.arange(len(test))), strict=True))
    for name, tokens in zip(samples.names, samples.tokens, strict=True):
        assert torch.equal(tokens, real[name.rsplit(" ", 1)[0]])
