"""A run's parts follow from its settings, and its report is what its generator deserves."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from drift_core import Batch, Euclidean, Field, Gaussian, KernelField, Laplace, Matern
from drift_core.runs.domain import Run, untrained
from drift_core.runs.folder import Place, restore_config
from drift_core.runs.main import train_generator
from drift_core.training.config import to_json
from drift_core.training.parallel import make_accelerator
from drift_promoter.config import PromoterConfig
from drift_promoter.crop_field import CropField
from drift_promoter.data import Promoters, Windows
from drift_promoter.domain import PromoterDomain, PromoterRun, generate
from drift_promoter.field import SequenceField
from drift_promoter.kmer_field import KmerField
from drift_simplex import CategoricalField, FisherRao
from torch import Generator

DOMAIN = PromoterDomain()


def make_generator(config, data):
    return untrained(DOMAIN, config, data)


def new_run(config, data) -> PromoterRun:
    """A run that is not trained."""
    return Run(Path(), config, data, make_generator(config, data))


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
def perfect(toy) -> PromoterRun:
    """A run whose generator finds the real sequence of each signal."""
    run, known = new_run(PromoterConfig(), toy), {}
    for part in (toy.val, toy.test):
        rows = torch.arange(len(part))
        keys = [signal.numpy().tobytes() for signal in part.signals(rows)]
        known |= dict(zip(keys, part.tokens(rows), strict=True))

    def sample(n, random, signal):
        return torch.stack([known[one.numpy().tobytes()] for one in signal])

    run.generator.sample = sample
    return run


def test_a_run_drifts_by_crops_or_whole_sequences(little):
    config = PromoterConfig.of(crop=6, crop_lengthscale="1:0.4", signal_lengthscale=0.25)
    field = DOMAIN.field(config, little)
    assert isinstance(field, CropField)
    assert (field.width, field.field.product, field.data) == (6, True, little.train)
    assert (field.field.lengthscales.start, field.field.lengthscales.stop) == ((1.0,), (0.4,))
    assert field.similarity.kernel == Laplace(0.25)
    whole = DOMAIN.field(PromoterConfig.of(crop=0, lengthscale="0.3,3"), little)
    assert isinstance(whole, SequenceField)
    assert isinstance(whole.field, CategoricalField)
    assert not whole.field.product
    assert whole.field.lengthscales.start == (0.3, 3.0)
    for made in (field, whole):
        assert isinstance(made, Field)
        assert isinstance(made.manifold, FisherRao)


def test_positives_of_data_other_than_toy_are_counted(little):
    toy, real = PromoterConfig(), PromoterConfig.of(dataset="promoter", seed=3)
    assert (toy.counted, toy.decoding, toy.clusters) == (False, "argmax", 0)
    assert (real.counted, real.decoding, real.clusters) == (True, "sampled", 16)
    field = DOMAIN.field(real, little)
    assert isinstance(field, KmerField)
    assert (len(field.clusters), field.crops.width, field.seed) == (16, 8, 3)
    assert DOMAIN.field(toy, little).decoding == "argmax"
    assert make_generator(real, little).decoding == "sampled"
    assert make_generator(toy, little).decoding == "argmax"
    alike = PromoterConfig.of(dataset="promoter", condition=False)
    assert (alike.counted, alike.clusters) == (True, 0)
    assert DOMAIN.field(alike, little).clusters is None
    for flags in ({"crop": 0}, {"geometry": "euclidean"}, {"positives": "sampled"}, {"crop": 12}):
        config = PromoterConfig.of(dataset="promoter", **flags)
        assert (config.counted, config.decoding, config.clusters) == (False, "argmax", 0)
        assert not isinstance(DOMAIN.field(config, little), KmerField)
    few = DOMAIN.field(PromoterConfig.of(positives="counted", condition_clusters=3), little)
    assert len(few.clusters) == 3
    assert DOMAIN.field(PromoterConfig.of(decoding="sampled"), little).decoding == "sampled"


@pytest.mark.parametrize(
    "flags",
    [{}, {"crop": 0}, {"geometry": "euclidean"}, {"positives": "counted"}, {"condition": False}],
    ids=str,
)
@pytest.mark.parametrize("dataset", ["toy", "promoter"])
def test_settings_of_a_run_stand_when_it_is_read_again(dataset, flags):
    config = PromoterConfig.of(dataset=dataset, **flags)
    stored = json.loads(json.dumps({"domain": DOMAIN.name, **to_json(config)}))
    assert restore_config(PromoterConfig, stored) == config


def test_the_euclidean_baseline_is_of_whole_sequences_in_flat_space(little):
    config = PromoterConfig.of(geometry="euclidean", lengthscale="1", direction="displacement")
    field = DOMAIN.field(config, little)
    assert isinstance(field, SequenceField)
    assert isinstance(field.field, KernelField)
    assert isinstance(field.manifold.base, Euclidean)
    assert field.field.direction == "displacement"
    generator = make_generator(config, little)
    x = generator(generator.latent(3, Generator()), little.test.signals(torch.arange(3)))
    torch.testing.assert_close(x.sum(-1), torch.ones(3, 16))  # distributions, not their roots
    indices = DOMAIN.data_sampler(config, little)(5, Generator())
    assert field(Batch(x, indices, x, torch.arange(3))).field.shape == x.shape


@pytest.mark.parametrize(
    ("flags", "kernel"),
    [
        ({"kernel": "laplace"}, Laplace(0.4)),
        ({"kernel": "gaussian"}, Gaussian(0.4)),
        ({"kernel": "matern", "nu": 2.5}, Matern(0.4, 2.5)),
    ],
)
def test_kernel_and_direction_are_the_fields_own(little, flags, kernel):
    for settings in ({"crop": 0, "lengthscale": "0.4"}, {"crop": 8, "crop_lengthscale": "0.4"}):
        config = PromoterConfig.of(direction="displacement", **settings, **flags)
        config.check()
        field = DOMAIN.field(config, little).field
        assert field.kernel(0.4) == kernel
        assert field.direction == "displacement"


@pytest.mark.parametrize("crop", [0, 8])
def test_without_conditions_no_signal_is_asked_for(little, crop):
    config = PromoterConfig.of(condition=False, crop=crop)
    assert DOMAIN.condition_sampler(config, little) is None
    assert DOMAIN.field(config, little).similarity is None
    assert not make_generator(config, little).conditional
    tokens = generate(make_generator(config, little), torch.zeros(4, 16, 2), Generator())
    assert tokens.shape == (4, 16)
    given = DOMAIN.condition_sampler(PromoterConfig(), little)
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
    config = PromoterConfig.of(signal_tracks=tracks, signal_lengthscale=0.2, **flags)
    data = Promoters(windows(40, tracks=tracks), windows(0, tracks=tracks), windows(6, seed=1, tracks=tracks))
    changed = [replace(part, signal=part.signal.copy()) for part in (data.train, data.test)]
    for part in changed:
        part.signal[..., 1] = part.signal[..., 1][:, ::-1]
    fields, tokens = [], []
    for some in (data, Promoters(changed[0], data.val, changed[1])):
        generator, random = make_generator(config, some).double(), Generator().manual_seed(0)
        assert generator.input.in_channels == config.network.position_channels + tracks
        condition = DOMAIN.condition_sampler(config, some)(8, random).double()
        assert condition.shape == (8, 16, tracks)
        x = soft(8, 16, config.network.geometry)
        indices = DOMAIN.data_sampler(config, some)(30, random)
        batch = Batch(x, indices, x, torch.arange(8), condition=condition, model_condition=condition)
        fields.append(DOMAIN.field(config, some)(batch).field)
        tokens.append(DOMAIN.sample(Run(Path(), config, some, generator), 50, seed=0).tokens)
    assert torch.equal(*fields) == torch.equal(*tokens) == (tracks == 1)


def soft(n: int, length: int, geometry: str) -> torch.Tensor:
    """Points between the letters."""
    p = torch.randn(n, length, 4, generator=Generator().manual_seed(1), dtype=torch.float64).softmax(-1)
    return p if geometry == "euclidean" else p.sqrt()


def test_indices_are_of_crops_where_the_field_is(little):
    starts = DOMAIN.data_sampler(PromoterConfig.of(crop=6), little)(500, Generator())[:, 2]
    assert set(starts.tolist()) == set(range(11))
    assert not DOMAIN.data_sampler(PromoterConfig.of(crop=0), little)(500, Generator())[:, 2].any()


@pytest.mark.parametrize("kernel", ["laplace", "gaussian"])
@pytest.mark.parametrize(("geometry", "apart"), [("spherical", math.pi / 2), ("euclidean", math.sqrt(2))])
def test_the_automatic_lengthscale_spreads_log_weights_by_one(toy, kernel, geometry, apart):
    """Seen from training windows; a position that differs is pi / 2 away on the sphere, sqrt 2 in R^4."""
    config = PromoterConfig.of(crop=0, geometry=geometry, kernel=kernel, lengthscale="auto")
    (scale,) = DOMAIN.field(config, toy).field.lengthscales.start
    tokens = toy.train.tokens(torch.arange(1500))
    differing = (tokens[:200, None] != tokens[200:]).sum(-1).double()
    r = apart * differing.sqrt()
    log_weight = -r / scale if kernel == "laplace" else -(r**2) / (2 * scale**2)
    spread = (log_weight - log_weight.mean(1, keepdim=True)).square().mean().sqrt()
    assert float(spread) == pytest.approx(1, abs=0.05)


COUNTED = {"positives": "counted"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kernel": "matern", "nu": -1.0}, "`nu` must be .*, got -1.0"),
        ({"nu": 2.5}, "`nu` is for `kernel` matern .*; got laplace"),
        ({"signal_lengthscale": -0.1}, "`signal_lengthscale` must be positive .*, got -0.1"),
        ({"signal_lengthscale": 0.0}, "`signal_lengthscale` must be positive .*, got 0.0"),
        ({"signal_lengthscale": math.nan}, "`signal_lengthscale` must be positive .*, got nan"),
        ({"lengthscale": "long", "crop": 0}, "lengthscale 'long': expected a positive number"),
        ({"lengthscale": "-1", "crop": 0}, "lengthscale '-1': expected a positive number"),
        ({"crop_lengthscale": "0.5,wide"}, "lengthscale '0.5,wide': expected .* 'wide' is none"),
        ({"crop_lengthscale": "auto"}, "`crop_lengthscale` auto: auto is for `lengthscale`"),
        ({"lengthscale": "1"}, "`lengthscale` is for whole sequences"),
        ({"lengthscale": "1", "crop": 6}, "`lengthscale` is for whole sequences"),
        ({"crop_lengthscale": "1", "crop": 0}, "`crop_lengthscale` is for crops"),
        ({"crop_lengthscale": "1", "geometry": "euclidean"}, "`crop_lengthscale` is for crops"),
        ({"crop": 8, "geometry": "euclidean"}, "`crop` is for the sphere; `geometry` euclidean"),
        ({"output": "abs_normalize", "geometry": "euclidean"}, "`output` abs_normalize is for the sphere"),
        ({"crop": 1}, "`crop` must be at least 2, got 1"),
        ({"crop": -8}, "`crop` must be at least 2, got -8"),
        ({"crop": 17}, "2 to 16 base pairs, got 17"),
        ({"max_step": 4.0}, "max_step must lie in .*, got 4.0"),
        ({"global_channels": 0}, "`global_channels` must be at least 1, got 0"),
        ({"position_channels": 0}, "`position_channels` must be at least 1, got 0"),
        ({"batch_size": 1}, "`batch_size` must be at least 2, got 1"),
        (
            {**COUNTED, "crop": 11},
            "`positives` counted needs a `crop` of 2 to 10 and `geometry` spherical, got 11 and spherical",
        ),
        ({**COUNTED, "crop": 0}, "`positives` counted needs a `crop` of 2 to 10 .*, got 0"),
        (
            {**COUNTED, "geometry": "euclidean"},
            "`positives` counted needs .* `geometry` spherical, got 0 and euclidean",
        ),
        ({**COUNTED, "decoding": "argmax"}, "`positives` counted needs `decoding` sampled, got argmax"),
        (
            {**COUNTED, "condition_clusters": 0},
            "`positives` counted with `condition` needs `condition_clusters` of at least 1, got 0",
        ),
        ({"condition_clusters": 4}, "`condition_clusters` needs `positives` counted and `condition`"),
        (
            {**COUNTED, "condition_clusters": 4, "condition": False},
            "`condition_clusters` needs `positives` counted and `condition`",
        ),
        (
            {"signal_tracks": 1, "condition": False},
            "`signal_tracks` is for conditions, and `condition` is off",
        ),
        ({"condition_clusters": -1}, "`condition_clusters` must be at least 0, got -1"),
        ({"codebook_size": -1}, "`codebook_size` must be at least 0, got -1"),
        ({"codebook_size": 9, "codebook_span": 0}, "`codebook_span` must be at least 1, got 0"),
        (
            {"codebook_size": 9, "codebook_span": 5},
            "`codebook_span` must divide the length of a sequence, 16; got 5",
        ),
    ],
    ids=str,
)
def test_settings_that_are_refused_leave_no_folder(little, settings, message, monkeypatch, tmp_path):
    monkeypatch.setattr(DOMAIN, "load", lambda config: little)
    config = PromoterConfig.of(**settings)
    with pytest.raises(ValueError, match=message):
        train_generator(DOMAIN, config, Place(tmp_path / "run"), make_accelerator())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", DOMAIN.recipes)
def test_recipes_make_a_generator_and_a_field(name):
    """The sequences are short; beside the size of the network and of its entries all is as in the recipe."""
    recipe = PromoterConfig.of(dataset="promoter", **DOMAIN.recipes[name])
    recipe.check()
    config, tracks = recipe.replace(preset="small", codebook_span=4), recipe.data.signal_tracks
    data = Promoters(windows(40, tracks=tracks), windows(0, tracks=tracks), windows(6, tracks=tracks))
    generator, field = make_generator(config, data), DOMAIN.field(config, data)
    assert isinstance(field, SequenceField if name == "paper" else KmerField)
    assert (generator.codebook is not None) == (name not in ("toy", "paper"))
    condition = DOMAIN.condition_sampler(config, data)
    signals = condition(3, Generator()) if condition else None
    x = generator(generator.latent(3, Generator()), signals).detach()
    indices = DOMAIN.data_sampler(config, data)(5, Generator())
    v = field(Batch(x, indices, condition=signals)).field
    assert v.shape == x.shape
    assert bool(v.isfinite().all())


def test_the_paper_recipe_is_the_published_setting():
    """Adam of a constant rate, and the Gaussian gradient of whole sequences, given one track."""
    config = PromoterConfig.of(dataset="promoter", **DOMAIN.recipes["paper"])
    rates = [config.optimizer.lr_at(step) for step in (config.optimizer.warmup_steps, 19_999)]
    assert rates == [5e-4] * 2
    assert (config.optimizer.optimizer, config.batch.batch_size, config.crop) == ("adam", 128, 0)
    assert (config.kernel.kernel, config.kernel.direction) == ("gaussian", "gradient")
    arguments = config.network.arguments
    assert (arguments["width"], arguments["blocks"], arguments["output"]) == (256, 20, "softmax")


def test_without_a_recipe_the_data_choose_one():
    assert DOMAIN.default_recipe(PromoterConfig()) == "toy"
    assert DOMAIN.default_recipe(PromoterConfig.of(dataset="promoter")) == "promoter"
    assert DOMAIN.default_recipe(PromoterConfig.of(tss=Path("mine.tsv"))) == "quick"
    assert PromoterConfig.of(**DOMAIN.recipes["toy"]) == PromoterConfig()


def test_a_run_has_a_codebook_if_asked(little):
    assert make_generator(PromoterConfig(), little).codebook is None
    generator = make_generator(PromoterConfig.of(codebook_size=9, codebook_span=4), little)
    assert (generator.codebook.num_embeddings, generator.slots) == (9, 4)


def test_the_seed_alone_determines_the_untrained_generator(little):
    state = torch.get_rng_state()
    first, again, other = (
        torch.cat([p.flatten() for p in make_generator(PromoterConfig.of(seed=seed), little).parameters()])
        for seed in (3, 3, 4)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_without_validation_windows_nothing_is_validated(little):
    assert DOMAIN.validation(PromoterConfig(), little) is None
    with pytest.raises(ValueError, match="no windows to evaluate on"):
        DOMAIN.metrics(new_run(PromoterConfig(), little), 1, "val")


def test_validation_prefers_the_data_and_says_the_same_again(perfect, toy):
    distance = DOMAIN.validation(PromoterConfig(), toy)
    best, untrained = distance(perfect.generator), distance(make_generator(PromoterConfig(), toy))
    assert 0 <= best < 0.1  # 512 of the 1,000 windows against all of them, and every motif in its place
    assert untrained > 1.5
    assert distance(make_generator(PromoterConfig(), toy)) == untrained


def test_a_perfect_sampler_scores_at_the_floor(perfect):
    scores = DOMAIN.metrics(perfect, 1, "test")
    assert scores["kmer_correlation"].value >= scores["kmer_correlation"].floor
    assert scores["motif_placement"].value > 0.999
    assert scores["motif_placement_shuffled"].value < 0.05
    assert scores["conditioning"].value == pytest.approx(scores["conditioning"].floor, abs=0.15)


def test_samples_are_determined_by_their_seed_and_named_by_their_windows(little, tmp_path):
    run = new_run(PromoterConfig(), little)
    first, again, other = (DOMAIN.sample(run, 4, seed) for seed in (5, 5, 6))
    assert torch.equal(first.tokens, again.tokens)
    assert first.names == again.names
    assert not torch.equal(first.tokens, other.tokens)
    places = {name.rsplit(" ", 1)[0] for name in first.names}
    assert len(places) == 4
    assert places <= set(little.test.names(torch.arange(6)))
    DOMAIN.write(tmp_path / "four.fasta", first)
    headers = [line for line in Path(tmp_path / "four.fasta").read_text().split("\n") if line[:1] == ">"]
    assert headers == [f">{name}" for name in first.names]


def test_more_samples_than_test_windows_take_their_signals_in_turn(little):
    names = DOMAIN.sample(new_run(PromoterConfig(), little), 15, 0).names
    assert len(set(names)) == 15  # FASTA readers want different headers
    places = [name.rsplit(" ", 1)[0] for name in names]
    assert [places.count(name) for name in little.test.names(torch.arange(6))].count(2) == 3
    assert places[:6] == places[6:12]
    assert len(set(places)) == 6


def test_samples_are_generated_for_the_signals_that_name_them(perfect):
    samples = DOMAIN.sample(perfect, 30, seed=1)
    test = perfect.data.test
    real = dict(zip(test.names(torch.arange(len(test))), test.tokens(torch.arange(len(test))), strict=True))
    for name, tokens in zip(samples.names, samples.tokens, strict=True):
        assert torch.equal(tokens, real[name.rsplit(" ", 1)[0]])
