"""What generators share: the scale of layers, latents, points and precision."""

import pytest
import torch
from drift_simplex.generator import (
    ResidualMLP,
    bf16_autocast,
    check_choice,
    draw_latents,
    init_layer,
    output_points,
    silu_mlp,
)
from torch import Generator, nn


@pytest.mark.parametrize("layer", [lambda: nn.Linear(300, 50), lambda: nn.Conv1d(40, 50, 9, bias=False)])
def test_layers_start_with_outputs_of_the_given_scale(layer):
    torch.manual_seed(0)
    made = init_layer(layer(), std=3.0)
    shape = (400, 300) if isinstance(made, nn.Linear) else (40, 40, 49)
    x = 2.0 * torch.randint(2, shape) - 1  # of mean square 1
    with torch.no_grad():
        h = made(x)[..., 4:-4]  # without what padding there might be
    assert float(h.std()) == pytest.approx(3.0, rel=0.1)
    assert made.bias is None or not made.bias.any()


def test_hidden_states_hardly_shrink_from_layer_to_layer():
    torch.manual_seed(0)
    mlp, h = silu_mlp(64, 256, 256, 256), torch.randn(500, 64)
    assert [type(module) for module in mlp] == 3 * [nn.Linear, nn.SiLU]
    for layer, activation in zip(mlp[::2], mlp[1::2], strict=True):
        before = float(h.square().mean())
        with torch.no_grad():
            h = activation(layer(h))
        assert 0.6 < float(h.square().mean()) / before < 1


def test_a_residual_mlp_starts_with_outputs_of_one_scale_at_any_depth():
    z = 2.0 * torch.randint(2, (300, 24)) - 1
    for blocks in (0, 2, 8):
        torch.manual_seed(0)
        mlp = ResidualMLP(24, 128, blocks, 50)
        assert len(mlp.blocks) == blocks
        out = mlp(z)
        assert out.shape == (300, 50)
        assert float(out.detach().std()) == pytest.approx(2**0.5, rel=0.1)
        out.square().sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in mlp.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_latents_are_signs_or_normal_numbers(dtype):
    signs = draw_latents((4000, 3), "bernoulli", Generator().manual_seed(0), dtype)
    assert signs.dtype == dtype
    assert {*signs.flatten().tolist()} == {-1.0, 1.0}
    assert signs.mean(0).abs().max() < 5 / 4000**0.5
    normal = draw_latents((4000, 3), "gaussian", Generator().manual_seed(0), dtype)
    assert normal.dtype == dtype
    assert normal.mean(0).abs().max() < 5 / 4000**0.5
    assert (normal.std(0) - 1).abs().max() < 0.06


def test_points_are_those_of_the_geometry():
    h = torch.randn(20, 5, 4, generator=Generator().manual_seed(0), dtype=torch.float64)
    p = output_points(h, "euclidean", "softmax")
    torch.testing.assert_close(p, h.softmax(-1))
    assert torch.equal(p, output_points(h, "euclidean", "abs_normalize"))
    torch.testing.assert_close(output_points(h, "spherical", "softmax").square(), p)
    x = output_points(h, "spherical", "abs_normalize")
    torch.testing.assert_close(x, h.abs() / h.norm(dim=-1, keepdim=True))


@pytest.mark.parametrize("enabled", [True, False])
def test_precision_is_halved_on_gpus_alone(enabled):
    x = torch.ones(3, 3)
    with bf16_autocast(enabled, x, x):
        assert (x @ x).dtype == torch.float32


def test_a_choice_that_is_unknown_is_refused():
    check_choice("output", "softmax", ("softmax", "abs_normalize"))
    with pytest.raises(ValueError, match="output 'sigmoid' is none of softmax, abs_normalize"):
        check_choice("output", "sigmoid", ("softmax", "abs_normalize"))
