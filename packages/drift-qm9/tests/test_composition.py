"""Strings of given composition: a drift problem for each, and the generator that draws it first."""

from dataclasses import replace

import pytest
import torch
from drift_core import Batch, ConditionalField, KernelField, Laplace
from drift_core.field import observe, observes
from drift_core.lengthscale import Lengthscales
from drift_core.testing import check_field
from drift_qm9 import NOTATIONS, SELFIES, SMILES
from drift_qm9.composition import Composition, CompositionField
from drift_qm9.model import MoleculeGenerator
from drift_simplex import CategoricalField, FisherRao, onehot_to_sphere
from torch import Generator

END, K, L = 1, 5, 6
SPACE, SCALE = FisherRao(), Lengthscales((0.7,))
LENGTHS, COUNTS = Composition(END), Composition(END, ((2,), (3, 4)))
COUNTS_OF_CLASSES = Composition(END, ((2,), (3,)))


def strings(m, seed=0):
    """Random tokens; lengths of all sizes occur."""
    random = Generator().manual_seed(seed)
    tokens = torch.randint(2, K, (m, L), generator=random)
    ends = torch.randint(1, L, (m,), generator=random)
    return tokens.masked_fill(torch.arange(L) >= ends[:, None], END)


def batch(composition=COUNTS, dtype=torch.float64):
    random = Generator().manual_seed(1)
    x = SPACE.projx(torch.rand(7, L, K, generator=random, dtype=torch.float64)).to(dtype)
    return Batch(x, strings(40), condition=composition(strings(7, seed=2)))


def test_a_string_ends_at_its_first_end():
    tokens = torch.tensor([[0, 1, 1, 1], [0, 2, 1, 2], [0, 2, 3, 1], [0, 2, 3, 4], [1, 2, 3, 4]])
    assert LENGTHS(tokens).flatten().tolist() == [0, 1, 2, 2, 0]


def test_letters_are_counted_by_kind():
    tokens = strings(60)
    for row, counts in zip(tokens.tolist(), COUNTS(tokens).tolist(), strict=True):
        body = row[1 : row.index(END) if END in row else L - 1]
        assert counts == [len(body), body.count(2), sum(letter in (3, 4) for letter in body)], row


def test_the_largest_counts_do_not_run_into_one_another():
    """Every letter of several kinds, in the longest strings."""
    kinds = Composition(END, ((2,), (2, 3), (3,), (2, 4), (2,)))
    tokens = torch.full((2, 1024), 2, dtype=torch.uint8)
    tokens[1, 1:500] = 3
    assert kinds(tokens).tolist() == [[1022, 1022, 1022, 0, 1022, 1022], [1022, 523, 1022, 499, 523, 523]]
    with pytest.raises(ValueError, match="at most 1024 tokens, got 1025"):
        kinds(torch.zeros(1, 1025, dtype=torch.int64))
    with pytest.raises(ValueError, match="at most five kinds of letters, got 6"):
        Composition(END, ((2,),) * 6)


def test_classes_count_what_they_tell_apart():
    classes = [0, 1, 2, 3, 3]  # letters 3 and 4 are one
    found, columns = COUNTS.of_classes(classes)
    assert (found, columns) == (COUNTS_OF_CLASSES, [0, 1, 2])
    tokens = strings(60)
    assert torch.equal(found(torch.tensor(classes)[tokens]), COUNTS(tokens))
    mixed, columns = COUNTS.of_classes([0, 1, 2, 2, 3])  # letter 3 is taken for a 2, and for a 4 no more
    assert (mixed, columns) == (LENGTHS, [0])


@pytest.mark.parametrize("notation", NOTATIONS.values(), ids=lambda notation: notation.name)
def test_molecules_are_counted_as_their_letters_say(notation):
    named = [[notation.letters[letter] for letter in kind] for kind in notation.composition.kinds]
    nitrogen, oxygen, rings, branches = map(set, named)
    if notation is SMILES:
        assert (oxygen, rings, branches) == ({"O", "o", "[O-]"}, set("12345"), {"("})
    assert {letter.strip("[]=#")[0].upper() for letter in nitrogen} == {"N"}
    assert {letter.strip("[]=#")[0].upper() for letter in oxygen} == {"O"}
    visible = notation.composition.of_classes(notation.classes)[1]
    assert visible == [0, 3, 4]  # length, rings and branches


@pytest.mark.parametrize(
    ("smiles", "counts"),
    [("Cc1ncc(N)[nH]1", [11, 3, 0, 2, 1]), ("OC=O", [4, 0, 2, 0, 0]), ("FC(F)F", [6, 0, 0, 0, 1])],
)
def test_the_composition_of_molecules(smiles, counts):
    assert SMILES.composition(torch.tensor([SMILES.encode(smiles, 16)])).tolist() == [counts]
    found = SELFIES.composition(torch.tensor([SELFIES.encode(smiles, 16)]))[0].tolist()
    assert found[1:3] == counts[1:3]


@pytest.mark.parametrize("composition", [LENGTHS, COUNTS], ids=["lengths", "counts"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 2e-5)])
def test_samples_meet_those_of_their_own_composition_alone(composition, dtype, tolerance):
    """Against float64 autograd of the log-sum-exp over the references with equal counts, one by one."""
    given = batch(composition, dtype)
    found = CompositionField(CategoricalField(K, Laplace, SCALE), composition)(given)
    data, own = onehot_to_sphere(given.data, K).double(), given.condition
    met = 0
    for i, counts in enumerate(own):
        x = given.x[i].double().clone().requires_grad_()
        others = (own == counts).all(1) & (torch.arange(7) != i)
        for points, near, part in (
            (data, (composition(given.data) == counts).all(1), found.attraction[i]),
            (SPACE.projx(given.x.double()), others, found.repulsion[i]),
        ):
            if not near.any():
                assert not part.any()
                continue
            met += 1
            log_k = torch.stack([-SPACE.dist(SPACE.projx(x), y) / 0.7 for y in points[near]])
            (gradient,) = torch.autograd.grad(log_k.logsumexp(0), x)
            expected = SPACE.proju(SPACE.projx(x).detach(), gradient)
            assert float((part - expected).norm() / expected.norm()) < tolerance
    assert met >= 5


def test_it_obeys_the_laws():
    check_field(CompositionField(CategoricalField(K, Laplace, SCALE), COUNTS), batch())


def test_it_is_the_conditional_field_of_all_problems_at_once():
    field = CategoricalField(K, Laplace, SCALE)
    own = COUNTS(strings(40))[[0, 0, 1, 1, 1, 2, 3]]  # of the data, so that every problem has some
    given = replace(batch(), condition=own)
    _, labels = torch.unique(torch.cat([own, COUNTS(given.data)]), dim=0, return_inverse=True)
    labelled = replace(given, condition=labels[:7], data_condition=labels[7:])
    expected = ConditionalField(field)(labelled)
    torch.testing.assert_close(CompositionField(field, COUNTS)(given), expected)


def test_log_weights_of_the_data_remain():
    given = batch()
    weight = torch.randn(40, generator=Generator().manual_seed(3), dtype=torch.float64)
    field = CategoricalField(K, Laplace, SCALE)
    found = CompositionField(field, COUNTS)(replace(given, data_log_weight=weight)).attraction
    i = next(i for i, c in enumerate(given.condition) if (COUNTS(given.data) == c).all(1).sum() > 1)
    same = (COUNTS(given.data) == given.condition[i]).all(1)
    alone = Batch(given.x[i : i + 1], given.data[same], data_log_weight=weight[same])
    torch.testing.assert_close(found[i : i + 1], field(alone).attraction)


def test_samples_meet_data_by_the_counts_that_both_have():
    """A field that sees some of the counts takes those of the samples alone."""
    given = batch()
    of_both = CompositionField(CategoricalField(K, Laplace, SCALE), LENGTHS, columns=[0])(given)
    lengths = Batch(given.x, given.data, condition=given.condition[:, :1])
    of_lengths = CompositionField(CategoricalField(K, Laplace, SCALE), LENGTHS)(lengths)
    assert torch.equal(of_both.field, of_lengths.field)


def test_samples_without_compositions_are_refused():
    field = CompositionField(KernelField(SPACE, Laplace, SCALE), COUNTS)
    with pytest.raises(ValueError, match="needs those of the samples"):
        field(Batch(batch().x, strings(3)))


ROWS = torch.tensor([[1, 0], [3, 2], [3, 2], [3, 2]])


@pytest.fixture
def model():
    torch.manual_seed(0)
    sizes = {"length": L, "vocab_size": K, "width": 8, "blocks": 0, "heads": 1, "mlp_width": 8}
    model = MoleculeGenerator(**sizes, global_channels=3, position_channels=0, compositions=(2, 2))
    model.learn_compositions(ROWS)
    return model


def test_compositions_are_drawn_by_their_frequencies(model):
    drawn = model.draw_compositions(4000, Generator().manual_seed(0))
    first, second = ((drawn == row).all(1) for row in ROWS[:2])
    assert bool((first | second).all())
    assert abs(int(first.sum()) - 1000) < 5 * (4000 * 3 / 16) ** 0.5


def test_outputs_depend_on_the_composition(model, tmp_path):
    z = model.latent(20, Generator().manual_seed(0))
    rows = [ROWS[:1].expand(20, -1), ROWS[1:2].expand(20, -1)]
    few, many = (model(z, row) for row in rows)
    assert bool(((few - many).flatten(1).norm(dim=1) > 1e-3).all())
    mixed = torch.where(torch.arange(20)[:, None] < 10, *rows)
    tokens = model.sample(20, Generator().manual_seed(0), mixed)
    assert torch.equal(tokens[:10], few.argmax(-1)[:10])
    assert torch.equal(tokens[10:], many.argmax(-1)[10:])
    model.save_pretrained(tmp_path)
    again = MoleculeGenerator.from_pretrained(tmp_path)
    assert torch.equal(again.compositions, model.compositions)
    assert torch.equal(again.frequencies, torch.tensor([0.25, 0.75]))
    assert torch.equal(*(m.sample(30, Generator().manual_seed(5)) for m in (model, again)))


def test_compositions_too_many_or_missing_are_refused(model):
    z = model.latent(2, Generator())
    with pytest.raises(ValueError, match="takes compositions"):
        model(z)
    plain = MoleculeGenerator(length=L, vocab_size=K, width=8, blocks=0, heads=1, mlp_width=8)
    with pytest.raises(ValueError, match="takes no compositions"):
        plain(plain.latent(2, Generator()), torch.zeros(2, 1, dtype=torch.long))
    with pytest.raises(ValueError, match="codebook entries cannot be given"):
        MoleculeGenerator(codebook_size=9, compositions=(2, 1))
    with pytest.raises(ValueError, match=r"the table of compositions is \(2, 2\), the data have \(1, 2\)"):
        model.learn_compositions(ROWS[1:])
    for count in (-1, L - 1):
        with pytest.raises(ValueError, match=r"must lie in \[0, 4\]"):
            model.sample(1, Generator(), torch.tensor([[1, count]]))


def test_compositions_are_compared_for_a_field_that_observes_alone():
    class Watching(CategoricalField):
        def observe(self, batch):
            seen.append(batch)

    seen = []
    assert not observes(CompositionField(CategoricalField(K, Laplace, SCALE), COUNTS))
    observe(CompositionField(Watching(K, Laplace, SCALE), COUNTS), batch())
    assert seen[0].data_log_weight.isneginf().any()
