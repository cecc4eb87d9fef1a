"""What the settings of a run make: its field, its generator, and what is refused."""

import math
from pathlib import Path

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
from drift_core.runs.domain import untrained
from drift_core.training.config import from_json
from drift_core.training.loop import Field
from drift_qm9.config import MoleculeConfig
from drift_qm9.data import Molecules
from drift_qm9.domain import MoleculeDomain
from drift_qm9.tokens import CLASSES, EOS, VOCABULARY
from drift_simplex import CategoricalField, FisherRao
from torch import Generator

DOMAIN = MoleculeDomain()


@pytest.fixture
def little() -> Molecules:
    """Random strings over the letters of molecules."""
    tokens = torch.randint(35, (60, 12), generator=Generator().manual_seed(0))
    return Molecules(tokens[:40], tokens[40:50], tokens[50:])


def checked(**settings):
    """Settings of a run that is not refused."""
    config = MoleculeConfig.of(**settings)
    config.check()
    return config


def make_field(data, **settings):
    return DOMAIN.field(checked(**settings), data)


def make_generator(data, **settings):
    return untrained(DOMAIN, checked(**settings), data)


def positives(data, n=100, **settings):
    return DOMAIN.data_sampler(checked(**settings), data)(n, Generator())


def test_a_run_drifts_by_whole_strings_classes_and_windows(little):
    field = make_field(little, window=4, window_lengthscale="2:0.4", class_weight=0.5, window_weight=2.0)
    assert isinstance(field, SumField)
    assert field.weights == [1.0, 0.5, 2.0]
    whole, classes, windows = field.fields
    counted = whole.composition, classes.field.field.composition, windows.composition
    assert [each.end for each in counted] == [EOS, CLASSES[EOS], EOS]
    assert [each.size for each in counted] == [5, 3, 5]
    assert isinstance(whole.field, CategoricalField)
    assert whole.field.product is False
    assert isinstance(classes, PullbackField)
    assert int(classes.field.log_count.exp().round().sum()) == 40
    assert classes.field.field.field.vocab_size == classes.map.count == 16
    window = windows.field.fields[0]
    assert window.map(little.train).shape == (40, 4)
    assert (window.field.product, window.field.vocab_size) == (True, 35)
    assert (window.field.lengthscales.start, window.field.lengthscales.stop) == ((2.0,), (0.4,))
    assert isinstance(field, Field)
    assert isinstance(field.manifold, FisherRao)


def test_what_is_drawn_first_is_given_to_generator_and_field(little):
    def counts(**settings):
        draw = DOMAIN.condition_sampler(checked(**settings), little)
        generator = make_generator(little, **settings)
        if draw is None:
            assert not generator.conditional
            return 0
        drawn = draw(40 * 16, Generator().manual_seed(0))
        rows = set(map(tuple, generator.compositions.tolist()))
        assert rows == set(map(tuple, drawn.tolist()))  # of 40 training strings
        return drawn.shape[1]

    assert counts() == 5
    assert counts(given="length") == 1
    assert counts(given="nothing") == counts(codebook_size=9) == counts(geometry="euclidean") == 0


def test_samples_and_data_of_a_step_share_compositions(little):
    """A step has runs of samples of each composition, however few molecules there are, and data of these."""
    config = checked()
    given = DOMAIN.condition_sampler(config, little)(1_000, Generator().manual_seed(0))
    assert torch.equal(given, given[::16].repeat_interleave(16, 0)[:1_000])
    data = DOMAIN.data_sampler(config, little).matching(given, 500, Generator().manual_seed(1))
    assert torch.equal(little.notation.composition(data), given[::2])


def test_parts_of_weight_zero_are_left_out(little):
    for off, count in (({"class_weight": 0.0}, 1), ({"window_weight": 0.0}, 2)):
        field = make_field(little, lengthscale="0.3,3", direction="displacement", **off)
        assert len(field.fields) == count
        whole = field.fields[0].field
        assert (whole.direction, whole.lengthscales.start) == ("displacement", (0.3, 3.0))


def test_atoms_are_one_class_and_the_grammar_is_kept():
    named = dict(zip(VOCABULARY, CLASSES, strict=True))
    atoms = {"C", "N", "O", "F", "c", "n", "o", *(token for token in VOCABULARY if token[0] == "[")}
    assert {token for token in VOCABULARY if named[token] == named["C"]} == atoms
    others = [named[token] for token in VOCABULARY if token not in atoms]
    assert len(set(others)) == len(others)


def test_molecules_are_reweighted_by_their_indices(little):
    field = make_field(little, reweight=0.6, codebook_size=9)
    assert isinstance(field, BalancedField)
    assert field.until == 0.6
    assert torch.equal(field.data, little.train)
    indices = positives(little, reweight=0.6, codebook_size=9)
    assert torch.equal(indices, torch.arange(40))
    plain = make_field(little, reweight=0.0, codebook_size=9)
    x = FisherRao().projx(torch.rand(3, 12, 35, generator=Generator().manual_seed(0)))
    pulls = [
        f(Batch(x, d, x, torch.arange(3), progress=1.0)) for f, d in ((field, indices), (plain, little.train))
    ]
    torch.testing.assert_close(*(pull.field for pull in pulls))  # at the end


@pytest.mark.parametrize(
    "off",
    [
        {"codebook_size": 9, "window_weight": 1.0},
        {"codebook_size": 0},
        {"codebook_size": 9, "geometry": "euclidean"},
        {"codebook_size": 9, "reweight": 0.0},
    ],
    ids=str,
)
def test_what_is_not_reweighted_drifts_to_molecules(little, off):
    assert checked(**off).reweight == 0
    assert not isinstance(make_field(little, **off), BalancedField)
    assert positives(little, **off).shape[:2] == (40, 12)


def test_settings_that_are_none_suit_the_others():
    def arguments(**settings):
        return checked(**settings).network.arguments

    coded, small = {"codebook_size": 9}, {"preset": "small"}
    channels = [arguments(**s)["position_channels"] for s in ({}, coded, small, {**coded, **small})]
    assert channels == [0, 0, 4, 0]
    assert arguments(position_channels=2)["position_channels"] == 2
    assert arguments(**small, position_channels=0)["position_channels"] == 0
    assert [checked(**DOMAIN.recipes[name]).network.best_of for name in ("toy", "qm9", "paper")] == [6, 1, 1]
    sizes = [arguments(preset=name)["width"] for name in ("mlp", "small", "base")]
    assert sizes == [64, 128, 768]
    assert [arguments(**s).get("mlp_width", 0) for s in ({}, {"preset": "mlp-large"}, small)] == [
        512,
        2048,
        0,
    ]
    outputs = [arguments(**s)["output"] for s in ({}, {"output": "softmax"}, {"geometry": "euclidean"})]
    assert outputs == ["abs_normalize", "softmax", "softmax"]
    assert (checked().reweight, checked(**coded).reweight, checked(**coded, reweight=0.2).reweight) == (
        0,
        0.7,
        0.2,
    )
    weights = [checked(**s).weights for s in ({}, coded, {"geometry": "euclidean"}, {"class_weight": 0.5})]
    assert weights == [(1, 1), (0, 0), (0, 0), (0.5, 0.5)]


def test_the_euclidean_baseline_is_of_whole_sequences_in_flat_space(little):
    settings = {"geometry": "euclidean", "lengthscale": "1", "direction": "displacement"}
    field = make_field(little, **settings)
    assert isinstance(field, KernelField)
    assert isinstance(field.manifold.base, Euclidean)
    generator = make_generator(little, **settings)
    x = generator(generator.latent(5, Generator()))
    torch.testing.assert_close(x.sum(-1), torch.ones(5, 12))  # distributions, not their roots
    data = positives(little, **settings)
    assert field(Batch(x, data, x, torch.arange(5))).field.shape == x.shape


@pytest.mark.parametrize(
    ("settings", "kernel"),
    [
        ({"kernel": "laplace"}, Laplace(0.4)),
        ({"kernel": "gaussian"}, Gaussian(0.4)),
        ({"kernel": "matern", "nu": 2.5}, Matern(0.4, 2.5)),
    ],
)
def test_the_kernel_is_that_of_the_settings(little, settings, kernel):
    whole, classes, windows = make_field(little, **settings).fields
    kernels = [whole.field.kernel, classes.field.field.field.kernel, windows.field.fields[0].field.kernel]
    assert [made(0.4) for made in kernels] == [kernel] * 3


@pytest.mark.parametrize("kernel", ["laplace", "gaussian"])
@pytest.mark.parametrize(("geometry", "apart"), [("spherical", math.pi / 2), ("euclidean", math.sqrt(2))])
def test_the_automatic_lengthscale_spreads_log_weights_of_the_data_by_one(toy, kernel, geometry, apart):
    """Seen from one another; a position that differs is pi / 2 away on the sphere, sqrt 2 in R^35."""
    settings = {"geometry": geometry, "kernel": kernel, "lengthscale": "auto", "class_weight": 0.0}
    field = make_field(toy, **settings)
    whole = field if geometry == "euclidean" else field.fields[0].field
    (scale,) = whole.lengthscales.start
    rows = torch.randperm(len(toy.train), generator=Generator().manual_seed(1))[:1500]
    tokens = toy.train[rows]
    r = apart * (tokens[:200, None] != tokens[200:]).sum(-1).double().sqrt()
    log_weight = -r / scale if kernel == "laplace" else -(r**2) / (2 * scale**2)
    spread = (log_weight - log_weight.mean(1, keepdim=True)).square().mean().sqrt()
    assert float(spread) == pytest.approx(1, abs=0.07)


@pytest.mark.parametrize("output", ["abs_normalize", "softmax"])
def test_the_generator_is_that_of_the_settings(little, output):
    settings = {"output": output, "preset": "small", "global_channels": 5, "position_channels": 2}
    generator = make_generator(little, **settings)
    assert (generator.output, generator.latent_dim, generator.length) == (output, 5 + 24, 12)
    assert (generator.codebook, len(generator.blocks)) == (None, 4)
    again = make_generator(little, **settings)
    assert torch.equal(generator.logits.weight, again.logits.weight)
    other = make_generator(little, **settings, seed=1)
    assert not torch.equal(generator.logits.weight, other.logits.weight)
    coded, fresh = make_generator(little, codebook_size=9), make_generator(little, output=output)
    assert (coded.codebook.size, len(coded.blocks), coded.latent_dim) == (9, 0, 1)
    assert (fresh.codebook, len(fresh.blocks), len(fresh.mlp.blocks), fresh.latent_dim) == (None, 0, 4, 48)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"window": 1}, "`window` must be at least 2, got 1"),
        ({"window_lengthscale": "auto"}, "`window_lengthscale` auto: auto is for `lengthscale`"),
        ({"class_lengthscale": "auto:1"}, "`class_lengthscale` auto: auto is for `lengthscale`"),
        ({"window_lengthscale": "-1"}, "-1"),
        ({"class_weight": -1.0}, "`class_weight` must be finite and not negative, got -1"),
        ({"window_weight": math.inf}, "`window_weight` must be finite and not negative, got inf"),
        ({"lengthscale": "short"}, "short"),
        ({"lengthscale": "0"}, "0"),
        ({"codebook_size": -1}, "`codebook_size` must be at least 0, got -1"),
        ({"codebook_size": 2**24 + 1}, "`codebook_size` must be at most 16777216"),
        ({"reweight": 1.0}, r"`reweight` must lie in \[0, 1\), got 1.0"),
        ({"global_channels": 0}, "`global_channels` must be at least 1, got 0"),
        ({"position_channels": -2}, "`position_channels` must be at least 0, got -2"),
        ({"eval_draws": 0}, "`eval_draws` must be at least 1"),
        ({"steps": 0}, "`steps` must be at least 1"),
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        MoleculeConfig.of(**settings).check()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reweight": 0.5, "codebook_size": 0}, "`reweight` .* a `codebook_size`"),
        ({"class_weight": 0.5, "geometry": "euclidean"}, "`class_weight` .* `geometry` is euclidean"),
        ({"output": "abs_normalize", "geometry": "euclidean"}, "`output` abs_normalize is for the sphere"),
        ({"given": "length", "codebook_size": 9}, "`given` length is for fresh latents on the sphere"),
        ({"skip_bad": True}, "`skip_bad` is for files; `dataset` toy is enumerated"),
        ({"data": Path("mine.smi"), "dataset": "qm9"}, "`data` is a file instead of `dataset` qm9"),
        ({"kernel": "laplace", "nu": 0.5}, "`nu` is for `kernel` matern .* got laplace"),
        ({"kernel": "gaussian", "nu": 1.5}, "`nu` is for `kernel` matern .* got gaussian"),
    ],
    ids=str,
)
def test_settings_that_contradict_one_another_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        MoleculeConfig.of(**settings).check()
    if "reweight" not in settings:
        for name in settings:  # any other of them alone is fine
            checked(**{key: value for key, value in settings.items() if key != name})


@pytest.mark.parametrize(
    "others", [{"window_weight": 1.0}, {"class_weight": 1.0}, {"geometry": "euclidean"}], ids=str
)
def test_whole_strings_alone_are_reweighted(others):
    with pytest.raises(ValueError, match="`reweight` is for whole strings alone"):
        MoleculeConfig.of(reweight=0.5, codebook_size=9, **others).check()


@pytest.mark.parametrize(
    "settings",
    [
        {"reweight": 0.0, "class_weight": 1.0},
        {"reweight": 0.0, "geometry": "euclidean"},
        {"output": "softmax", "geometry": "euclidean"},
        {"class_weight": 0.0, "window_lengthscale": "2:0.4"},
        {"skip_bad": True, "data": Path("mine.smi")},
        {"skip_bad": True, "dataset": "qm9"},
        {"kernel": "matern", "nu": math.inf},
    ],
    ids=str,
)
def test_settings_that_agree_are_taken(settings):
    checked(**settings)


def test_a_kernel_of_one_sphere_is_refused_in_a_file():
    with pytest.raises(ValueError, match="spectral"):
        from_json(MoleculeConfig(), {"kernel": {"kernel": "spectral"}})


def test_windows_wider_than_the_strings_are_the_strings(little):
    x = FisherRao().projx(torch.rand(3, 12, 35, generator=Generator().manual_seed(0)))
    wide, whole = (make_field(little, window=w).fields[2] for w in (100, 12))
    batch = Batch(x, little.train, condition=little.notation.composition(little.train[:3]))
    pulls = [field(batch).field for field in (wide, whole)]
    torch.testing.assert_close(*pulls)


@pytest.mark.parametrize("recipe", DOMAIN.recipes)
def test_every_recipe_makes_a_generator_and_its_field(little, recipe):
    settings = dict(DOMAIN.recipes[recipe])
    checked(**settings)
    quicker = {"base": "small", "mlp-large": "mlp-small"}
    if "preset" in settings:
        settings["preset"] = quicker.get(settings["preset"], settings["preset"])
    generator, field = make_generator(little, **settings), make_field(little, **settings)
    draw = DOMAIN.condition_sampler(checked(**settings), little)
    lengths = draw(5, Generator()) if draw else None
    x = generator(generator.latent(5, Generator().manual_seed(0)), lengths).detach()
    found = field(Batch(x, positives(little, **settings), condition=lengths))
    assert found.field.shape == x.shape == (5, 12, 35)
    assert found.field.isfinite().all()


def test_the_recipes_of_the_paper_are_the_published_settings():
    """Fresh latents, softmax, the Laplace kernel and a constant learning rate after its warm-up."""
    for name in ("paper", "paper-euclidean", "reference-gpu"):
        config = checked(**DOMAIN.recipes[name])
        arguments = config.network.arguments
        assert (arguments["codebook_size"], arguments["output"]) == (0, "softmax")
        assert (config.kernel.kernel, config.reweight, config.network.drawn) == ("laplace", 0, "nothing")
        last = config.optimizer.steps - 1
        assert config.optimizer.lr_at(config.optimizer.warmup_steps) == config.optimizer.lr_at(last)
    euclidean = checked(**DOMAIN.recipes["paper-euclidean"])
    assert (euclidean.network.geometry, euclidean.kernel.direction) == ("euclidean", "displacement")
    assert checked(**DOMAIN.recipes["reference-gpu"]).network.arguments["width"] == 768


def test_the_recipe_is_that_of_the_data():
    of = [{}, {"dataset": "qm9"}, {"data": Path("mine.smi")}]
    assert [DOMAIN.default_recipe(checked(**data)) for data in of] == ["toy", "qm9", "quick"]
    steps = {name: checked(**DOMAIN.recipes[name]).optimizer.steps for name in ("toy", "qm9", "quick")}
    assert steps == {"toy": 1_000, "qm9": 4_000, "quick": 800}
