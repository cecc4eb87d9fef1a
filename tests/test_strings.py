import itertools
import re

import pytest
import torch
from accelerate import Accelerator
from drift_core import BalancedField, Laplace, TrainConfig, train
from drift_core.lengthscale import parse_lengthscales
from drift_core.training.samplers import resample
from drift_simplex import CategoricalField


@pytest.fixture
def bed(import_app):
    """The test bed of random strings."""
    return import_app("benchmarks.strings")


def test_random_strings_are_distinct_and_seeded(bed):
    strings = bed.random_strings(200, 4, 4)
    assert strings.shape == (200, 4)
    assert len({tuple(row) for row in strings.tolist()}) == 200
    assert torch.equal(strings, bed.random_strings(200, 4, 4))
    assert not torch.equal(strings, bed.random_strings(200, 4, 4, seed=1))
    assert len(bed.random_strings(256, 4, 4)) == 256  # all there are
    with pytest.raises(ValueError, match="256"):
        bed.random_strings(257, 4, 4)


def test_metrics_of_a_case_counted_by_hand(bed):
    support = torch.tensor([[0, 0], [0, 1], [1, 0], [2, 2]])
    drawn = torch.tensor([[0, 0], [0, 0], [0, 1], [1, 1], [3, 0]])
    # The law of the drawn is 2/5, 1/5, 0, 0 on the support and 2/5 off it.
    assert bed.support_metrics(drawn, support) == pytest.approx({"valid": 0.6, "covered": 0.5, "tv": 0.55})
    assert bed.support_metrics(support, support) == {"valid": 1.0, "covered": 1.0, "tv": 0.0}


def test_a_network_learns_every_string(bed, tmp_path):
    support = bed.random_strings(16, 5, 3)
    torch.manual_seed(0)
    generator = bed.StringGenerator(5, 3, channels=8, width=64)
    field = BalancedField(CategoricalField(3, Laplace, parse_lengthscales("0.3")), support)
    config = TrainConfig.of(
        steps=400, batch_size=96, num_positives=16, lr=3e-3, decay_fraction=0.5, ema_decay=0.98, max_step=1.0
    )
    data, accelerator = resample(torch.arange(16)), Accelerator(cpu=True)
    trained = train(generator, field, data, config, tmp_path, accelerator=accelerator)
    scores = bed.support_metrics(trained.sample(4000, torch.Generator().manual_seed(1)), support)
    assert scores["valid"] > 0.9
    assert scores["covered"] == 1
    assert scores["tv"] < 0.25


def test_codebook_entries_are_drawn_by_their_indices(bed):
    torch.manual_seed(0)
    model, generator = bed.StringGenerator(5, 3, width=16, codebook_size=7), torch.Generator().manual_seed(0)
    z = model.latent(700, generator)
    assert z.shape == (700, 1)
    assert sorted(set(z.flatten().tolist())) == [0, 1, 2, 3, 4, 5, 6]
    x = model(z)
    for index in range(7):
        of_entry = x[z[:, 0] == index]
        assert torch.equal(of_entry, of_entry[:1].expand_as(of_entry))
    assert len(torch.unique(x, dim=0)) == 7


def test_codebook_entries_keep_their_strings_where_those_outnumber_the_batch(bed, tmp_path):
    """96 strings by 12 samples a step."""
    support = bed.random_strings(96, 8, 4)
    torch.manual_seed(0)
    generator = bed.StringGenerator(8, 4, width=128, codebook_size=192)
    field = BalancedField(CategoricalField(4, Laplace, parse_lengthscales("0.6:0.3")), support)
    config = TrainConfig.of(
        steps=1_100,
        batch_size=12,
        num_negatives=84,
        num_positives=96,
        lr=5e-3,
        decay_fraction=0.5,
        weight_decay=0.0,
        max_step=1.0,
    )
    data, accelerator = resample(torch.arange(96)), Accelerator(cpu=True)
    trained = train(generator, field, data, config, tmp_path, accelerator=accelerator)
    scores = bed.support_metrics(trained.sample(4000, torch.Generator().manual_seed(1)), support)
    assert scores["valid"] > 0.9
    assert scores["covered"] > 0.9


@pytest.fixture
def grammar(import_app):
    """The test bed of a small language."""
    return import_app("benchmarks.grammar")


def in_language(string: str) -> bool:
    """Whether a string is in the language, by taking away rings, and then branches from the inside."""
    if string.count("1") not in (0, 2) or re.search("(?<![CN])1", string):
        return False
    chain, before = string.replace("1", "").replace("N", "C"), ""
    while chain != before:
        chain, before = re.sub(r"(?<=C)\(C+\)", "", chain), chain
    return re.fullmatch("C+", chain) is not None


@pytest.mark.parametrize("length", range(1, 7))
def test_the_language_is_all_that_the_grammar_accepts(grammar, length):
    strings = ["".join(letters) for letters in itertools.product(grammar.LETTERS, repeat=length)]
    expected = sorted(string for string in strings if in_language(string))
    found = ["".join(grammar.LETTERS[token] for token in row) for row in grammar.language(length).tolist()]
    assert sorted(found) == expected


def test_halves_are_disjoint_and_random_but_seeded(grammar):
    strings = grammar.language(7)
    train, held_out = (set(map(tuple, part.tolist())) for part in grammar.halves(strings))
    assert len(train) == len(held_out) == 428
    assert train | held_out == set(map(tuple, strings.tolist()))
    assert torch.equal(grammar.halves(strings).train, grammar.halves(strings).train)
    assert not torch.equal(grammar.halves(strings).train, grammar.halves(strings, seed=1).train)


def test_generalisation_counted_by_hand_and_of_perfect_draws(grammar):
    parts = grammar.Halves(torch.tensor([[0, 0], [0, 1]]), torch.tensor([[1, 0], [1, 1]]))
    drawn = torch.tensor([[0, 0], [0, 0], [0, 1], [1, 1], [2, 2]])
    expected = {"valid": 0.8, "novel": 0.2, "covered": 1.0, "found": 0.5}
    assert grammar.generalisation(drawn, parts) == pytest.approx(expected)
    parts = grammar.halves(grammar.language(7))
    drawn = torch.cat([*parts])[torch.randint(856, (1_000,), generator=torch.Generator().manual_seed(0))]
    assert grammar.generalisation(drawn, parts) == pytest.approx(grammar.perfect(1_000, parts), abs=0.04)


def test_a_network_finds_strings_that_it_has_not_seen(grammar):
    parts = grammar.halves(grammar.language(6))
    model = grammar.fit(parts, steps=150, batch_size=64)
    scores = grammar.generalisation(model.sample(2_000, torch.Generator().manual_seed(1)), parts)
    assert scores["valid"] > 0.7  # 260 of 5^6 strings are, 0.017
    assert scores["found"] > 0.1


def test_a_network_is_less_sure_of_strings_outside_the_language(grammar):
    """Early in training, when many strings are: of four candidates it chooses fewer of them than of one."""
    parts = grammar.halves(grammar.language(6))
    model = grammar.fit(parts, steps=60, batch_size=64)
    one, four = (
        grammar.generalisation(model.sample(2_000, torch.Generator().manual_seed(1), best_of), parts)["valid"]
        for best_of in (1, 4)
    )
    assert 0.05 < 1 - one < 0.5
    assert 1 - four < 0.75 * (1 - one)
