import json
import math

import pytest
import torch
from drift_qm9 import PRESETS, MoleculeGenerator
from drift_qm9 import model as module
from drift_qm9.model import Block
from torch import Generator, nn
from torch.nn import functional as F

TINY = {
    "length": 6, "vocab_size": 5, "width": 16, "blocks": 2, "heads": 2, "condition": 8, "global_channels": 3,
    "output": "softmax",
}  # fmt: skip


def tiny(**arguments):
    torch.manual_seed(0)
    return MoleculeGenerator(**{**TINY, **arguments})


@pytest.fixture(
    params=[
        {},
        {"output": "abs_normalize"},
        {"geometry": "euclidean"},
        {"position_channels": 0},
        {"latents": "gaussian", "position_channels": 1},
        {"codebook_size": 40},
        {"codebook_size": 40, "position_channels": 0, "blocks": 0},
        {"mlp_width": 24, "mlp_blocks": 2, "blocks": 0, "position_channels": 0},
        {"mlp_width": 24, "mlp_blocks": 1, "position_channels": 2},
    ],
    ids=str,
)
def model(request):
    return tiny(**request.param)


def agreement(tokens):
    """How often two samples have the same letter at the same position."""
    counts = F.one_hot(tokens).sum(0).double()
    n = len(tokens)
    return float(((counts * (counts - 1)).sum(-1) / (n * (n - 1))).mean())


def test_outputs_are_points_of_their_geometry(model, generator):
    x = model(model.latent(50, generator))
    assert x.shape == (50, 6, 5)
    assert x.dtype == torch.float32
    assert (x >= 0).all()
    power = 2 if model.geometry == "spherical" else 1
    torch.testing.assert_close(x.pow(power).sum(-1), torch.ones(50, 6))


def test_logits_are_the_same_in_both_geometries(generator):
    sphere, simplex = tiny(), tiny(geometry="euclidean")
    z = sphere.latent(20, generator)
    torch.testing.assert_close(sphere(z).square(), simplex(z))
    torch.testing.assert_close(tiny(geometry="euclidean", output="abs_normalize")(z), simplex(z))


def test_abs_normalized_outputs_are_absolute_values_of_unit_length(generator):
    model = tiny(output="abs_normalize")
    z = model.latent(20, generator)
    h = model._network(z, None)
    torch.testing.assert_close(model(z), h.abs() / h.norm(dim=-1, keepdim=True))


def test_samples_depend_on_the_generator_alone(model):
    tokens = model.sample(100, Generator().manual_seed(3))
    assert tokens.shape == (100, 6)
    assert tokens.dtype == torch.int64
    assert torch.equal(model.sample(100, Generator().manual_seed(3), batch_size=7), tokens)
    assert not torch.equal(model.sample(100, Generator().manual_seed(4)), tokens)
    assert torch.equal(tokens, model(model.latent(100, Generator().manual_seed(3))).argmax(-1))


def test_of_candidates_the_first_sure_one_is_taken_or_else_the_surest(model):
    """Written out one sample at a time; the batch does not matter."""
    model.best_of = 3
    tokens = model.sample(20, Generator().manual_seed(3))
    assert torch.equal(model.sample(20, Generator().manual_seed(3), batch_size=7), tokens)
    assert torch.equal(model.sample(20, Generator().manual_seed(3), batch_size=1), tokens)
    x = model(model.latent(60, Generator().manual_seed(3))).detach().double()
    p = x.square() if model.geometry == "spherical" else x
    for i, found in enumerate(tokens):
        candidates = p[3 * i : 3 * i + 3]
        sure = [min(0.7, float(candidate.amax(-1).prod())) for candidate in candidates]
        assert torch.equal(found, candidates[sure.index(max(sure))].argmax(-1))


@pytest.mark.parametrize("geometry", ["spherical", "euclidean"])
def test_of_candidates_the_first_sure_one_is_taken(generator, geometry):
    """Three candidates for each of two samples; 0.95^6 is above 0.7, 0.9^6 below."""
    own = torch.tensor([0.5, 0.95, 0.99, 0.5, 0.9, 0.8])
    p = ((1 - own) / 4)[:, None, None].repeat(1, 6, 5)
    p[range(6), :, torch.arange(6) % 5] = own[:, None]

    class Given(MoleculeGenerator):
        def forward(self, z, composition=None):
            return p.sqrt() if self.geometry == "spherical" else p

    model = Given(**{**TINY, "geometry": geometry, "best_of": 3})
    assert model.sample(2, generator).tolist() == [[1] * 6, [4] * 6]


def test_candidates_have_the_composition_of_their_sample(generator):
    """A network that says nothing but the composition."""

    class Echo(MoleculeGenerator):
        def forward(self, z, composition=None):
            return F.one_hot(composition[:, :1].expand(-1, self.length), 7).float()

    model = Echo(length=6, vocab_size=7, compositions=(3, 2), best_of=4)
    model.learn_compositions(torch.tensor([[1, 0], [2, 1], [4, 0]]))
    given = torch.tensor([[1, 0], [4, 0], [4, 0], [2, 1]])
    assert model.sample(4, generator, given).tolist() == [[n] * 6 for n in (1, 4, 4, 2)]
    assert {row[0] for row in model.sample(100, generator).tolist()} == {1, 2, 4}


def test_latents_are_fair_signs_or_standard_normal(generator):
    bernoulli = tiny().latent(4000, generator)
    assert bernoulli.shape == (4000, 3 + 6 * 4)
    assert {*bernoulli.flatten().tolist()} == {-1.0, 1.0}
    assert bernoulli.mean(0).abs().max() < 5 / 4000**0.5
    gaussian = tiny(latents="gaussian").latent(4000, generator)
    assert gaussian.mean(0).abs().max() < 5 / 4000**0.5
    assert (gaussian.std(0) - 1).abs().max() < 0.06
    assert gaussian.unique().numel() > 100_000


def test_codebook_entries_are_drawn_evenly_and_make_one_string_each(generator):
    model = tiny(codebook_size=7, position_channels=0, blocks=0)
    z = model.latent(7000, generator)
    assert z.shape == (7000, model.latent_dim) == (7000, 1)
    counts = z[:, 0].long().bincount()
    assert len(counts) == 7
    assert (counts - 1000).abs().max() < 5 * 1000**0.5
    x = model(z[:200])
    assert len(torch.unique(x, dim=0)) == 7
    noisy = tiny(codebook_size=7, position_channels=2)
    assert noisy.latent(3, generator).shape == (3, 1 + 6 * 2)
    assert len(torch.unique(noisy(noisy.latent(50, generator)), dim=0)) > 40


def test_the_channels_of_a_position_enter_there(generator):
    """Without blocks nothing mixes positions, so that only the global channels are shared."""
    model = tiny(blocks=0, position_channels=2)
    z = model.latent(1, generator)
    x = model(z)[0]
    for position in range(6):
        other = z.clone()
        other[0, 3 + 2 * position] *= -1
        moved = (model(other)[0] - x).abs().amax(-1) > 1e-6
        assert moved.tolist() == [i == position for i in range(6)]
    other = z.clone()
    other[0, 0] *= -1
    assert ((model(other)[0] - x).abs().amax(-1) > 1e-6).all()


def test_all_channels_reach_all_positions(generator):
    model = tiny()
    z = model.latent(1, generator).requires_grad_()
    for position in range(6):
        (gradient,) = torch.autograd.grad(model(z)[0, position, 0], z)
        assert (gradient != 0).all()


def test_a_block_is_attention_and_mlp_modulated_by_the_condition(generator):
    """Against torch's own attention, with the equations of DiT written out."""
    torch.manual_seed(0)
    block = Block(width=16, heads=4, condition=8).double()
    h, c = (torch.randn(3, *shape, generator=generator).double() for shape in ((5, 16), (8,)))
    attention = nn.MultiheadAttention(16, 4, bias=False, batch_first=True).double()
    attention.load_state_dict({"in_proj_weight": block.qkv.weight, "out_proj.weight": block.out.weight})
    a, b, alpha, d, e, beta = (c @ block.modulation.weight.T + block.modulation.bias)[:, None].split(
        16, dim=-1
    )
    seen = (1 + b) * F.layer_norm(h, (16,)) + a
    expected = h + alpha * attention(seen, seen, seen, need_weights=False)[0]
    expected = expected + beta * block.mlp((1 + e) * F.layer_norm(expected, (16,)) + d)
    torch.testing.assert_close(block(h, c), expected)


def test_untrained_outputs_are_spread_out(generator):
    """Two samples agree at few positions, and by softmax each is close to a string, for any latents."""
    mlp = {"position_channels": 0, **PRESETS["mlp"]}
    codebook = {**mlp, "codebook_size": 1024}
    short = {"position_channels": 0, "global_channels": 12}
    for arguments in ({}, short, {"latents": "gaussian"}, codebook, mlp):
        torch.manual_seed(0)
        model = MoleculeGenerator(length=16, output="softmax", **arguments)
        tokens = model.sample(256, generator)
        assert agreement(tokens) < 0.25  # of the toy data: 0.41
        with torch.no_grad():
            largest = model(model.latent(256, generator)).amax(-1).square()
        assert 0.5 < largest.mean() < 0.8
        torch.manual_seed(0)
        normalized = MoleculeGenerator(length=16, **arguments)
        assert normalized.output == "abs_normalize"
        assert agreement(normalized.sample(256, generator)) < 0.25


def test_gradients_reach_every_weight_and_are_finite(model, generator):
    x = model(model.latent(8, generator))
    (x[..., 0] ** 2).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert (parameter.grad != 0).any(), name


def test_certain_letters_have_finite_gradients():
    model = tiny()
    with torch.no_grad():
        model.logits.weight.mul_(1e4)
    x = model(model.latent(8, Generator().manual_seed(0)))
    assert (x == 0).any()
    x.square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_a_saved_model_is_the_same_model(model, tmp_path):
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").is_file()
    assert json.loads((tmp_path / "config.json").read_text())["geometry"] == model.geometry
    again = MoleculeGenerator.from_pretrained(tmp_path)
    assert (again.geometry, again.latents, again.latent_dim) == (
        model.geometry,
        model.latents,
        model.latent_dim,
    )
    assert again.output == model.output
    seeds = (Generator().manual_seed(5) for _ in range(2))
    assert torch.equal(again.sample(40, next(seeds)), model.sample(40, next(seeds)))


@pytest.mark.parametrize(
    ("preset", "millions"),
    [("mlp-small", 1.07), ("mlp", 3.18), ("mlp-large", 54.6), ("small", 1.25), ("base", 92.4)],
)
def test_presets_have_their_sizes(preset, millions):
    with torch.device("meta"):
        local = {"position_channels": 0} if "mlp_width" in PRESETS[preset] else {}
        model = MoleculeGenerator(**local, **PRESETS[preset])
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, rel=0.01)


def test_half_precision_stays_inside_the_network(monkeypatch, generator):
    """On a GPU; here the same autocast runs on the CPU, by torch's own products.

    Those of oneDNN take AMX instructions, which some virtual machines announce and refuse.
    """
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    model = tiny(bf16=True)
    z = model.latent(64, generator)
    exact = model(z)
    monkeypatch.setattr(module, "bf16_autocast", lambda *_: torch.autocast("cpu", torch.bfloat16))
    half = model(z)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half.square().sum(-1), torch.ones(64, 6))
    assert 1e-5 < (half - exact).abs().mean() < 0.02


def test_double_weights_give_double_points(generator):
    model = tiny(bf16=True).double()
    x = model(model.latent(8, generator))
    assert x.dtype == torch.float64
    torch.testing.assert_close(x.square().sum(-1), torch.ones(8, 6, dtype=torch.float64), atol=1e-14, rtol=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"geometry": "hyperbolic"}, "hyperbolic"),
        ({"latents": "pink"}, "pink"),
        ({"output": "sigmoid"}, "sigmoid"),
        ({"global_channels": 0}, "global_channels must be at least 1 .* got 0 and 4"),
        ({"position_channels": -1}, "position_channels at least 0, got 3 and -1"),
        ({"codebook_size": -1}, r"codebook size must lie in 1\.\.16777216, got -1"),
        ({"codebook_size": 2**24 + 1}, "got 16777217"),
        ({"best_of": 0}, "best_of must be at least 1, got 0"),
        ({"heads": 3}, "3 heads do not divide the width 16"),
    ],
)
def test_what_makes_no_network_is_refused(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        tiny(**arguments)


def test_a_uniform_letter_is_a_point_in_the_middle():
    model = tiny(blocks=0)
    with torch.no_grad():
        model.logits.weight.zero_()
    x = model(model.latent(1, Generator()))
    torch.testing.assert_close(x, torch.full_like(x, math.sqrt(1 / 5)))
