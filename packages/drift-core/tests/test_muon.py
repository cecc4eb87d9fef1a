"""The Muon optimiser: singular values near 1, equivariance, and updates as large as Adam's."""

import math

import pytest
import torch
from drift_core.training.muon import Muon, halley, hidden_matrices, newton_schulz, orthogonalize
from torch import nn

SHAPES = [(8, 8), (5, 40), (64, 16), (1, 7)]


def rotation(d: int, generator: torch.Generator) -> torch.Tensor:
    q, _ = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64))
    return q


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e15])
def test_singular_vectors_stay_and_singular_values_become_about_one(dtype, shape, scale):
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(shape, generator=generator, dtype=torch.float64)
    u, _, vt = torch.linalg.svd(matrix, full_matrices=False)
    inner = u.T @ orthogonalize((scale * matrix).to(dtype)).double() @ vt.T
    values = inner.diagonal()
    assert float(values.min()) > 0.5
    assert float(values.max()) < 1.5
    torch.testing.assert_close(inner, torch.diag(values), atol=1e-5, rtol=0)


def with_values(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Singular vectors and the matrix [a, 2 a] that has them and the values."""
    generator = torch.Generator().manual_seed(0)
    u, v = rotation(len(values), generator), rotation(2 * len(values), generator)[: len(values)]
    return u, v, u * values @ v


@pytest.mark.parametrize(
    ("iteration", "raised", "dtype", "error"),
    [
        (halley, 122, torch.float32, 1e-4),
        (halley, 122, torch.float64, 1e-12),
        (newton_schulz, 485, torch.float32, 0.1),  # in bfloat16
        (newton_schulz, 485, torch.float64, 1e-12),
    ],
)
def test_both_iterations_raise_small_singular_values_and_level_large_ones(iteration, raised, dtype, error):
    values = torch.logspace(-5, 0, 100, dtype=torch.float64)
    values = values / values.norm()
    u, v, matrix = with_values(values)
    inner = u.T @ iteration(matrix.to(dtype)).double() @ v.T
    assert float((inner - torch.diag(inner.diagonal())).abs().max()) < error
    level = inner.diagonal()[values > 0.005]
    assert 0.55 < float(level.min()) < float(level.max()) < 1.45
    small = values < 1e-5
    torch.testing.assert_close(inner.diagonal()[small], raised * values[small], rtol=0.01, atol=error)


def test_the_halley_iteration_is_as_near_to_one_as_any_of_its_kind():
    """Of x (a + b x^2) / (1 + c x^2) on [1/200, 1]: least at 1/200 and once between, where it is as small."""
    x = torch.logspace(math.log10(0.005), 0, 4001, dtype=torch.float64)
    y = torch.cat([halley(one.view(1, 1)).flatten() for one in x])
    inside = y[1500:]  # beyond the maximum
    assert float(y[0]) == pytest.approx(float(inside.min()), rel=1e-3)
    assert float(y.max()) == pytest.approx(float(y[-1]), rel=1e-3)
    assert float(y.max() + y.min()) == pytest.approx(2, rel=1e-3)


@pytest.mark.parametrize("shape", SHAPES)
def test_rotations_of_the_matrix_rotate_the_result(shape):
    generator = torch.Generator().manual_seed(1)
    matrix = torch.randn(shape, generator=generator, dtype=torch.float64)
    left, right = (rotation(d, generator) for d in shape)
    expected = left @ orthogonalize(matrix) @ right
    torch.testing.assert_close(orthogonalize(left @ matrix @ right), expected, atol=1e-12, rtol=0)


def test_a_zero_matrix_stays_zero():
    assert bool((orthogonalize(torch.zeros(3, 4)) == 0).all())


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv1d(3, 16, 5), nn.Flatten(), nn.Linear(64, 32), nn.LayerNorm(32), nn.Linear(32, 4)
    )


def test_linear_layers_and_convolutions_but_the_last_are_hidden():
    module = network()
    assert [tuple(w.shape) for w in hidden_matrices(module)] == [(16, 3, 5), (32, 64)]


def one_step(weight_decay: float = 0.0) -> tuple[nn.Sequential, nn.Sequential]:
    before, module = network(), network()
    hidden = hidden_matrices(module)
    others = [p for p in module.parameters() if all(p is not w for w in hidden)]
    optimizer = Muon(hidden, others, lr=1e-3, weight_decay=weight_decay)
    module(torch.randn(256, 3, 8)).square().sum().backward()
    optimizer.step()
    return before, module


def test_updates_of_matrices_are_as_large_as_a_typical_update_of_adam():
    before, module = one_step()
    for at in (0, 2):
        update = (module[at].weight - before[at].weight).detach() / 1e-3
        assert float(update.square().mean().sqrt()) == pytest.approx(0.2, rel=0.3)
    output = (
        module[4].weight - before[4].weight
    ).detach() / 1e-3  # Adam's first step is the sign of the gradient
    torch.testing.assert_close(output.abs(), torch.ones_like(output), atol=1e-3, rtol=0)


def test_weight_decay_shrinks_matrices_beside_the_update():
    _, plain = one_step()
    before, decayed = one_step(weight_decay=100.0)
    for at in (0, 2, 4):
        expected = plain[at].weight - 0.1 * before[at].weight
        torch.testing.assert_close(decayed[at].weight, expected)


def test_it_falls_faster_than_adamw_where_directions_have_very_different_gradients():
    """A linear regression whose inputs have standard deviations from 1 down to 1e-3."""

    def left(kind: str) -> float:
        generator = torch.Generator().manual_seed(0)
        x = (
            torch.randn(512, 32, generator=generator)
            * torch.logspace(0, -3, 32)
            @ rotation(32, generator).float()
        )
        target = torch.randn(32, 32, generator=generator)
        weight = nn.Parameter(torch.zeros(32, 32))
        optimizer = Muon([weight], [], lr=0.02) if kind == "muon" else torch.optim.AdamW([weight], lr=0.02)
        for step in range(200):
            optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / 200)
            loss = (x @ (weight - target)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return float((weight.detach() - target).square().mean())

    assert left("muon") < 0.7 * left("adamw")
