"""A run's parts follow from its settings, and its report is what its generator deserves."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from drift_core import Batch, Euclidean, Field, Gaussian, KernelField, Laplace, Matern
from drift_promoter.crop_field import CropField
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
from drift_promoter.field import SequenceField
from drift_promoter.kmer_field import KmerField
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


def test_a_run_drifts_by_crops_or_whole_sequences(little):
    config = Config(crop=6, crop_lengthscale="1:0.4", signal_lengthscale=0.25)
    field = make_field(config, little)
    assert isinstance(field, CropField)
    assert (field.width, field.field.product, field.data) == (6, True, little.train)
    assert (field.field.lengthscales.start, field.field.lengthscales.stop) == ((1.0,), (0.4,))
    assert field.similarity.kernel == Laplace(0.25)
    whole = make_field(Config(crop=0, lengthscale="0.3,3"), little)
    assert isinstance(whole, SequenceField)
    assert isinstance(whole.field, CategoricalField)
    assert not whole.field.product
    assert whole.field.lengthscales.start == (0.3, 3.0)
    for made in (field, whole):
        assert isinstance(made, Field)
        assert isinstance(made.manifold, FisherRao)


def test_positives_of_data_other_than_toy_are_counted(little):
    toy, real = Config(), Config(dataset="promoter", seed=3)
    assert (toy.positives, toy.readout, toy.condition_clusters) == ("sampled", "argmax", 0)
    assert (real.positives, real.readout, real.condition_clusters) == ("counted", "sampled", 16)
    field = make_field(real, little)
    assert isinstance(field, KmerField)
    assert (len(field.clusters), field.crops.width, field.seed) == (16, 8, 3)
    assert make_field(toy, little).readout == "argmax"
    assert make_generator(real, little).readout == "sampled"
    assert make_generator(toy, little).readout == "argmax"
    alike = Config(dataset="promoter", condition=False)
    assert (alike.positives, alike.condition_clusters) == ("counted", 0)
    assert make_field(alike, little).clusters is None
    for flags in ({"crop": 0}, {"geometry": "euclidean"}, {"positives": "sampled"}, {"crop": 12}):
        config = Config(dataset="promoter", **flags)
        assert (config.positives, config.readout, config.condition_clusters) == ("sampled", "argmax", 0)
        assert not isinstance(make_field(config, little), KmerField)
    few = make_field(Config(positives="counted", condition_clusters=3), little)
    assert len(few.clusters) == 3
    assert make_field(Config(readout="sampled"), little).readout == "sampled"


@pytest.mark.parametrize(
    "flags",
    [{}, {"crop": 0}, {"geometry": "euclidean"}, {"positives": "counted"}, {"condition": False}],
    ids=str,
)
@pytest.mark.parametrize("dataset", ["toy", "promoter"])
def test_settings_that_a_run_resolved_stand_when_it_is_read_again(dataset, flags):
    config = Config(dataset=dataset, **flags)
    assert replace(config) == config


def test_the_euclidean_baseline_is_of_whole_sequences_in_flat_space(little):
    config = Config(geometry="euclidean", lengthscale="1", direction="displacement")
    field = make_field(config, little)
    assert isinstance(field, SequenceField)
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
    given = {"lengthscale": "0.4", "crop_lengthscale": "0.4", "direction": "displacement", **flags}
    for crop in (0, 8):
        field = make_field(Config(crop=crop, **given), little).field
        assert field.kernel(0.4) == kernel
        assert field.direction == "displacement"


@pytest.mark.parametrize("crop", [0, 8])
def test_without_conditions_no_signal_is_asked_for(little, crop):
    config = Config(condition=False, crop=crop)
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
        {"crop": 0, "lengthscale": "1"},
        {"geometry": "euclidean", "lengthscale": "1"},
        {"positives": "sampled"},
        {"positives": "counted", "condition_clusters": 4},
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
        assert generator.input.in_channels == config.position_channels + tracks
        condition = conditions(config, some)(8, random).double()
        assert condition.shape == (8, 16, tracks)
        x = soft(8, 16, config.geometry)
        indices = positives(config, some)(30, random)
        batch = Batch(x, indices, x, torch.arange(8), condition=condition, model_condition=condition)
        fields.append(make_field(config, some)(batch).field)
        tokens.append(draw(Sampler(generator, some), 50, seed=0).tokens)
    assert torch.equal(*fields) == torch.equal(*tokens) == (tracks == 1)


def soft(n: int, length: int, geometry: str) -> torch.Tensor:
    """Points between the letters."""
    p = torch.randn(n, length, 4, generator=Generator().manual_seed(1), dtype=torch.float64).softmax(-1)
    return p if geometry == "euclidean" else p.sqrt()


def test_indices_are_of_crops_where_the_field_is(little):
    starts = positives(Config(crop=6), little)(500, Generator())[:, 2]
    assert set(starts.tolist()) == set(range(11))
    assert not positives(Config(crop=0), little)(500, Generator())[:, 2].any()


@pytest.mark.parametrize("kernel", ["laplace", "gaussian"])
@pytest.mark.parametrize(("geometry", "apart"), [("spherical", math.pi / 2), ("euclidean", math.sqrt(2))])
def test_the_automatic_lengthscale_spreads_log_weights_by_one(toy, kernel, geometry, apart):
    """Seen from training windows; a position that differs is pi / 2 away on the sphere, sqrt 2 in R^4."""
    config = Config(crop=0, geometry=geometry, kernel=kernel, lengthscale="auto")
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
        ({"lengthscale": "-1", "crop": 0}, "lengthscale '-1': expected a positive number"),
        ({"crop_lengthscale": "0.5,wide"}, "lengthscale '0.5,wide': expected .* 'wide' is none"),
        ({"crop_lengthscale": "auto"}, "--crop-lengthscale auto: auto is for --lengthscale"),
        ({"crop": 1}, "--crop must be at least 2, got 1"),
        ({"crop": -8}, "--crop must be at least 2, got -8"),
        ({"crop": 17}, "2 to 16 base pairs, got 17"),
        ({"max_step": 4.0}, "max_step must lie in .*, got 4.0"),
        ({"global_channels": 0}, "--global-channels must be at least 1, got 0"),
        ({"position_channels": 0}, "--position-channels must be at least 1, got 0"),
        ({"batch_size": 1}, "--batch-size must be at least 2, got 1"),
        (
            {"positives": "counted", "crop": 11},
            "--positives counted needs a --crop of 2 to 10 and --geometry spherical, got 11 and spherical",
        ),
        ({"positives": "counted", "crop": 0}, "--positives counted needs a --crop of 2 to 10 .*, got 0"),
        (
            {"positives": "counted", "geometry": "euclidean"},
            "--positives counted needs .* --geometry spherical, got 0 and euclidean",
        ),
        (
            {"positives": "counted", "readout": "argmax"},
            "--positives counted needs --readout sampled, got argmax",
        ),
        (
            {"positives": "counted", "condition_clusters": 0},
            "--positives counted with conditions needs --condition-clusters of at least 1, got 0",
        ),
        (
            {"condition_clusters": 4},
            "--condition-clusters needs --positives counted and --condition; got 4, sampled and --condition",
        ),
        (
            {"condition_clusters": 4, "positives": "counted", "condition": False},
            "--condition-clusters needs .*; got 4, counted and --no-condition",
        ),
        (
            {"signal_tracks": 1, "condition": False},
            "--signal-tracks is for conditions; --no-condition leaves",
        ),
        ({"condition_clusters": -1}, "--condition-clusters must be at least 0, got -1"),
        ({"codebook_size": -1}, "--codebook-size must be at least 0, got -1"),
        ({"codebook_size": 9, "codebook_span": 0}, "--codebook-span must be at least 1, got 0"),
        (
            {"codebook_size": 9, "codebook_span": 5},
            "--codebook-span must divide the length of a sequence, 16; got 5",
        ),
    ],
    ids=str,
)
def test_settings_that_are_refused(little, flags, message):
    with pytest.raises(ValueError, match=message):
        make_generator(Config(**flags), little) and make_field(Config(**flags), little)


def test_a_run_has_a_codebook_if_asked(little):
    assert make_generator(Config(), little).codebook is None
    generator = make_generator(Config(codebook_size=9, codebook_span=4), little)
    assert (generator.codebook.num_embeddings, generator.slots) == (9, 4)


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
