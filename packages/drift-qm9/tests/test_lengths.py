"""Strings of given lengths: the field of a product kernel, and the generator that draws lengths first."""

import pytest
import torch
from drift_core import Batch, KernelField, Laplace
from drift_core.lengthscale import Lengthscales
from drift_core.testing import check_field
from drift_qm9.lengths import LengthField, lengths_of
from drift_qm9.model import MoleculeGenerator
from drift_simplex import CategoricalField, FisherRao, onehot_to_sphere
from torch import Generator

END, K, L = 1, 5, 6
SPACE, SCALE = FisherRao(), Lengthscales((0.7,))


def strings(m, seed=0):
    """Random tokens; lengths of all sizes occur."""
    random = Generator().manual_seed(seed)
    tokens = torch.randint(2, K, (m, L), generator=random)
    ends = torch.randint(1, L, (m,), generator=random)
    return tokens.masked_fill(torch.arange(L) >= ends[:, None], END)


def batch(dtype=torch.float64):
    random = Generator().manual_seed(1)
    x = SPACE.projx(torch.rand(7, L, K, generator=random, dtype=torch.float64)).to(dtype)
    return Batch(x, strings(40), condition=torch.randint(0, L - 1, (7,), generator=random))


def test_a_string_ends_at_its_first_end():
    tokens = torch.tensor([[0, 1, 1, 1], [0, 2, 1, 2], [0, 2, 3, 1], [0, 2, 3, 4], [1, 2, 3, 4]])
    assert lengths_of(tokens, END).tolist() == [0, 1, 2, 2, 0]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 2e-5)])
def test_the_field_is_that_of_the_product_kernel(dtype, tolerance):
    """Against float64 autograd of the log-sum-exp over all pairs, lengths weighted by hand."""
    given, rate = batch(dtype), 1.3
    found = LengthField(CategoricalField(K, Laplace, SCALE), END, rate)(given)
    x = given.x.double().clone().requires_grad_()
    x_on = SPACE.projx(x)
    data, own = onehot_to_sphere(given.data, K).double(), given.condition.double()
    for points, lengths, part, alone in (
        (data, lengths_of(given.data, END).double(), found.attraction, False),
        (SPACE.projx(given.x.double()), own, found.repulsion, True),
    ):
        r = torch.stack([SPACE.dist(x_on, y) for y in points], dim=1)
        log_k = -r / 0.7 - rate * (own[:, None] - lengths).abs()
        log_k = log_k.masked_fill(torch.eye(7, dtype=torch.bool), -torch.inf) if alone else log_k
        (gradient,) = torch.autograd.grad(log_k.logsumexp(1).sum(), x, retain_graph=True)
        expected = SPACE.proju(x_on.detach(), gradient)
        assert float((part - expected).norm() / expected.norm()) < tolerance


def test_it_obeys_the_laws():
    check_field(LengthField(CategoricalField(K, Laplace, SCALE), END), batch())


def test_steep_lengths_leave_a_drift_problem_for_each_length():
    """At a large rate a sample meets strings of its own length alone."""
    given = batch()
    field = CategoricalField(K, Laplace, SCALE)
    found = LengthField(field, END, rate=1e4)(given).attraction
    for i, length in enumerate(given.condition.tolist()):
        same = given.data[lengths_of(given.data, END) == length]
        alone = field(Batch(given.x[i : i + 1], same)).attraction
        torch.testing.assert_close(found[i : i + 1], alone)


def test_samples_without_lengths_are_refused():
    field = LengthField(KernelField(SPACE, Laplace, SCALE), END)
    with pytest.raises(ValueError, match="needs the lengths of the samples"):
        field(Batch(batch().x, strings(3)))


@pytest.fixture
def model():
    torch.manual_seed(0)
    sizes = {"length": L, "vocab_size": K, "width": 8, "blocks": 0, "heads": 1, "mlp_width": 8}
    model = MoleculeGenerator(**sizes, global_channels=3, position_channels=0, given_length=True)
    model.length_weights.copy_(torch.tensor([0.0, 1.0, 0.0, 3.0, 0.0]))
    return model


def test_lengths_are_drawn_by_their_weights(model):
    drawn = model.draw_lengths(4000, Generator().manual_seed(0))
    counts = drawn.bincount(minlength=5)
    assert counts[[0, 2, 4]].tolist() == [0, 0, 0]
    assert abs(int(counts[1]) - 1000) < 5 * (4000 * 3 / 16) ** 0.5


def test_outputs_depend_on_the_length(model, tmp_path):
    z = model.latent(20, Generator().manual_seed(0))
    short, long = (model(z, torch.full((20,), length)) for length in (1, 3))
    assert bool(((short - long).flatten(1).norm(dim=1) > 1e-3).all())
    one, three = (torch.full((20,), length) for length in (1, 3))
    mixed = torch.where(torch.arange(20) < 10, one, three)
    tokens = model.sample(20, Generator().manual_seed(0), mixed)
    assert torch.equal(tokens[:10], short.argmax(-1)[:10])
    assert torch.equal(tokens[10:], long.argmax(-1)[10:])
    model.save_pretrained(tmp_path)
    again = MoleculeGenerator.from_pretrained(tmp_path)
    assert torch.equal(again.length_weights, model.length_weights)
    assert torch.equal(*(m.sample(30, Generator().manual_seed(5)) for m in (model, again)))


def test_lengths_too_many_or_missing_are_refused(model):
    z = model.latent(2, Generator())
    with pytest.raises(ValueError, match="takes lengths of strings"):
        model(z)
    plain = MoleculeGenerator(length=L, vocab_size=K, width=8, blocks=0, heads=1, mlp_width=8)
    with pytest.raises(ValueError, match="takes no lengths"):
        plain(plain.latent(2, Generator()), torch.zeros(2, dtype=torch.long))
    with pytest.raises(ValueError, match="codebook entries cannot be given"):
        MoleculeGenerator(codebook_size=9, given_length=True)
