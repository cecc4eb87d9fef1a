"""The field of windows: the mean over a position of what its windows do by themselves."""

from dataclasses import replace

import pytest
import torch
from drift_core import Batch, Laplace, PullbackField, SumField
from drift_core.lengthscale import parse_lengthscales
from drift_core.training.loop import Field
from drift_simplex import CategoricalField, window_field
from drift_simplex.windows import window_slices

LETTERS = CategoricalField(4, Laplace, parse_lengthscales("1:0.5"), product=True)


@pytest.mark.parametrize(
    ("length", "width", "starts"),
    [(8, 4, [0, 2, 4]), (9, 4, [0, 2, 4, 5]), (7, 3, [0, 1, 2, 3, 4]), (6, 6, [0]), (5, 9, [0]), (1, 2, [0])],
)
@pytest.mark.parametrize("product", [True, False])
def test_a_position_drifts_by_the_mean_of_its_windows(length, width, starts, product, soft, strings):
    inner = CategoricalField(4, Laplace, parse_lengthscales("1:0.5"), product=product)
    field, pool, data = window_field(inner, length, width), soft(6, length, 4), strings(20, length, 4)
    x, own, width = pool[2:4], torch.tensor([2, 3]), min(width, length)
    assert [at.start for at in window_slices(length, width)] == starts
    found = field(Batch(x, data, pool, own, progress=0.5))
    for position in range(length):
        covering = [s for s in starts if s <= position < s + width]
        assert covering
        parts = [
            inner(
                Batch(x[:, s : s + width], data[:, s : s + width], pool[:, s : s + width], own, progress=0.5)
            )
            for s in covering
        ]
        for total, side in zip(found, range(2), strict=True):
            mean = sum(part[side][:, position - s] for s, part in zip(covering, parts, strict=True))
            torch.testing.assert_close(total[:, position], mean / len(covering))
    sizes = [
        inner.diagnostics(Batch(x[:, s : s + width], data[:, s : s + width], progress=0.5))["ess"]
        for s in starts
    ]
    found = field.diagnostics(Batch(x, data, progress=0.5))
    assert found == pytest.approx({"ess": sum(sizes) / len(sizes)})


def test_a_window_as_wide_as_the_sequences_is_the_field_of_the_whole(soft, strings):
    pool, data, own = soft(6, 5, 4), strings(20, 5, 4), torch.arange(6)
    whole = LETTERS(Batch(pool, data, pool, own))
    torch.testing.assert_close(window_field(LETTERS, 5, 5)(Batch(pool, data, pool, own)), whole)


@pytest.mark.parametrize("product", [True, False])
@pytest.mark.parametrize("apart", [False, True])
def test_slices_are_pulled_back_as_by_automatic_differentiation(product, apart, soft, strings):
    """With log-weights of pairs, and samples that repel themselves or others."""
    inner = CategoricalField(4, Laplace, parse_lengthscales("1:0.5"), product=product)
    field, pool, generator = window_field(inner, 7, 3), soft(6, 7, 4), torch.Generator().manual_seed(3)
    model = pool if apart else None
    x = pool[2:4] if apart else pool
    log_weights = (torch.randn(len(x), m, generator=generator).to(pool) for m in (20, 6))
    own = torch.tensor([2, 3]) if apart else None
    slices = window_slices(7, 3)
    batch = Batch(x, strings(20, 7, 4), model, own, progress=0.5)
    batch = replace(batch, **dict(zip(("data_log_weight", "model_log_weight"), log_weights, strict=True)))
    pulled = [PullbackField(lambda x, s=s: x[:, s], inner, inner.manifold) for s in slices]
    cover = torch.zeros(7, 1)
    for window in slices:
        cover[window] += 1
    torch.testing.assert_close(field(batch), SumField(pulled, [1 / cover] * len(pulled))(batch))


def test_it_is_a_field_of_the_training_loop():
    field = window_field(LETTERS, 8, 4)
    assert isinstance(field, Field)
    assert field.manifold.point_ndim == 2


@pytest.mark.parametrize("width", [1, 0, -2])
def test_windows_of_less_than_two_positions_are_refused(width):
    with pytest.raises(ValueError, match=f"at least 2 positions, got {width}"):
        window_field(LETTERS, 8, width)
