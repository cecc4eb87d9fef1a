"""Classes of letters: the map, and the field of whole strings of classes."""

import pytest
import torch
from drift_core import Batch, Laplace
from drift_core.lengthscale import Lengthscales
from drift_core.testing import check_field
from drift_simplex import CategoricalField, FisherRao, LetterClasses, class_field, onehot_to_sphere

SPACE, SCALE = FisherRao(), Lengthscales((0.7,))
CLASSES = LetterClasses([0, 0, 1, 2, 1])


def coarse(direction="gradient"):
    """Field of strings of the classes."""
    return CategoricalField(CLASSES.count, Laplace, SCALE, direction)


def test_probabilities_of_a_class_add_up(soft):
    x = soft(7, 6, 5, 0)
    p = x.square()
    expected = torch.stack([p[..., 0] + p[..., 1], p[..., 2] + p[..., 4], p[..., 3]], dim=-1)
    torch.testing.assert_close(CLASSES(x).square(), expected)
    assert CLASSES(x.float()).dtype == torch.float32


def test_points_and_tokens_have_the_same_classes(strings):
    tokens = strings(20, 6, 5)
    expected = onehot_to_sphere(CLASSES.tokens(tokens), CLASSES.count)
    torch.testing.assert_close(CLASSES(onehot_to_sphere(tokens, 5)), expected)


def test_no_distance_increases(soft):
    """The map forgets, and Fisher-Rao distances are monotone (Chentsov)."""
    x, y = soft(40, 6, 5, 0), soft(40, 6, 5, 1)
    assert bool((SPACE.dist(CLASSES(x), CLASSES(y)) <= SPACE.dist(x, y) + 1e-12).all())


def test_gradients_are_finite_at_vertices(strings):
    x = onehot_to_sphere(strings(4, 6, 5), 5).requires_grad_()
    (gradient,) = torch.autograd.grad(CLASSES(x).sum(), x)
    assert gradient.isfinite().all()


def test_the_field_is_the_gradient_of_the_log_density_of_classes(soft, strings):
    """Against float64 autograd of the log-sum-exp over all data, repeated ones included."""
    x, tokens = soft(5, 6, 5, 0), strings(300, 6, 5, 1)
    leaf = x.clone().requires_grad_()
    images = CLASSES(onehot_to_sphere(tokens, 5).double())
    r = torch.stack([SPACE.dist(CLASSES(leaf), image) for image in images], dim=1)
    (gradient,) = torch.autograd.grad((-r / 0.7).logsumexp(1).sum(), leaf)
    field = class_field(CLASSES, coarse(), tokens)
    assert len(field.field.data) < 300
    found = field(Batch(x, tokens[:3])).attraction  # the batch's data have no effect
    torch.testing.assert_close(found, SPACE.proju(x, gradient), rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("direction", ["gradient", "displacement"])
def test_it_obeys_the_laws(direction, soft, strings):
    field = class_field(CLASSES, coarse(direction), strings(300, 6, 5, 1))
    check_field(field, Batch(soft(5, 6, 5, 0), strings(9, 6, 5, 1), soft(8, 6, 5, 2)))


def test_it_does_not_tell_letters_of_a_class_apart(soft, strings):
    """Negative control: data with other letters of the same classes exert the same attraction."""
    x, tokens = soft(5, 6, 5, 0), strings(300, 6, 5, 1)
    other = torch.tensor([1, 0, 4, 3, 2])[tokens]
    parts = [class_field(CLASSES, coarse(), t)(Batch(x, t)).attraction for t in (tokens, other)]
    torch.testing.assert_close(*parts)


@pytest.mark.parametrize("classes", [[], [1, 2], [0, 2], [-1, 0]])
def test_gaps_in_the_numbers_are_refused(classes):
    with pytest.raises(ValueError, match="numbered from 0 without gaps"):
        LetterClasses(classes)
