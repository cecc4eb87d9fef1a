import pytest
import torch
from accelerate import Accelerator
from drift_core import BalancedField, Laplace, TrainConfig, train
from drift_core.lengthscale import parse_lengthscales
from drift_core.training.loop import resample
from drift_simplex import (
    CategoricalField,
    Codebook,
    StringGenerator,
    abs_normalize,
    random_strings,
    support_metrics,
)


def test_random_strings_are_distinct_and_seeded():
    strings = random_strings(200, 4, 4)
    assert strings.shape == (200, 4)
    assert len({tuple(row) for row in strings.tolist()}) == 200
    assert torch.equal(strings, random_strings(200, 4, 4))
    assert not torch.equal(strings, random_strings(200, 4, 4, seed=1))
    assert len(random_strings(256, 4, 4)) == 256  # all there are
    with pytest.raises(ValueError, match="256"):
        random_strings(257, 4, 4)


def test_metrics_of_a_case_counted_by_hand():
    support = torch.tensor([[0, 0], [0, 1], [1, 0], [2, 2]])
    drawn = torch.tensor([[0, 0], [0, 0], [0, 1], [1, 1], [3, 0]])
    # The law of the drawn is 2/5, 1/5, 0, 0 on the support and 2/5 off it.
    assert support_metrics(drawn, support) == pytest.approx({"valid": 0.6, "covered": 0.5, "tv": 0.55})
    assert support_metrics(support, support) == {"valid": 1.0, "covered": 1.0, "tv": 0.0}


def test_folding_is_an_isometry_and_keeps_gradients_at_the_vertices():
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(50, 6, generator=generator, dtype=torch.float64)
    x = abs_normalize(h)
    assert bool((x >= 0).all())
    torch.testing.assert_close(x.norm(dim=-1), torch.ones(50, dtype=torch.float64))

    near = torch.tensor([1.0, 1e-4, 2e-4], dtype=torch.float64)  # all but at the first vertex
    singular = torch.linalg.svdvals(torch.autograd.functional.jacobian(abs_normalize, near))
    torch.testing.assert_close(singular[:2], torch.ones(2, dtype=torch.float64), atol=1e-6, rtol=0)

    logits = 2 * near.log()
    root = torch.autograd.functional.jacobian(lambda u: u.softmax(-1).sqrt(), logits)
    assert float(torch.linalg.svdvals(root)[0]) < 2e-4  # the control: nothing moves


def test_a_network_learns_every_string(tmp_path):
    support = random_strings(16, 5, 3)
    torch.manual_seed(0)
    generator = StringGenerator(5, 3, bits=8, width=64)
    field = BalancedField(CategoricalField(3, Laplace, parse_lengthscales("0.3")), support)
    config = TrainConfig(
        steps=400, batch_size=96, num_positives=16, lr=3e-3, decay_fraction=0.5, ema_decay=0.98, max_step=1.0
    )
    data, accelerator = resample(torch.arange(16)), Accelerator(cpu=True)
    trained = train(generator, field, data, config, tmp_path, accelerator=accelerator)
    scores = support_metrics(trained.sample(4000, torch.Generator().manual_seed(1)), support)
    assert scores["valid"] > 0.9
    assert scores["covered"] == 1
    assert scores["tv"] < 0.25


def test_untrained_codes_have_mean_square_one_and_move_further_than_their_weights():
    torch.manual_seed(0)
    book = Codebook(2000, 16)
    numbers = torch.arange(2000.0)
    assert float(book(numbers).detach().square().mean()) == pytest.approx(1, abs=0.05)
    with torch.no_grad():
        before = book(numbers)
        book.vectors.weight += 0.1
        torch.testing.assert_close(book(numbers) - before, torch.full((2000, 16), 0.5))


@pytest.mark.parametrize("size", [0, -1, 2**24 + 1])
def test_what_is_no_number_of_codes_is_refused(size):
    with pytest.raises(ValueError, match=rf"codes must lie in 1\.\.16777216, got {size}"):
        Codebook(size, 4)


def test_codes_are_drawn_by_their_numbers():
    torch.manual_seed(0)
    model, generator = StringGenerator(5, 3, width=16, codes=7), torch.Generator().manual_seed(0)
    z = model.latent(700, generator)
    assert z.shape == (700, 1)
    assert sorted(set(z.flatten().tolist())) == [0, 1, 2, 3, 4, 5, 6]
    x = model(z)
    for number in range(7):
        of_code = x[z[:, 0] == number]
        assert torch.equal(of_code, of_code[:1].expand_as(of_code))
    assert len(torch.unique(x, dim=0)) == 7


def test_codes_keep_their_strings_where_those_outnumber_the_batch(tmp_path):
    """96 strings by 12 samples a step."""
    support = random_strings(96, 8, 4)
    torch.manual_seed(0)
    generator = StringGenerator(8, 4, width=128, codes=192)
    field = BalancedField(CategoricalField(4, Laplace, parse_lengthscales("0.6:0.3")), support)
    config = TrainConfig(
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
    scores = support_metrics(trained.sample(4000, torch.Generator().manual_seed(1)), support)
    assert scores["valid"] > 0.9
    assert scores["covered"] > 0.9
