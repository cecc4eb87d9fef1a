import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from drift_promoter import model as module
from drift_promoter.layers import Block
from drift_promoter.model import PRESETS, PromoterGenerator
from torch import Generator
from torch.nn import functional as F

TINY = {"length": 24, "width": 16, "blocks": 2, "global_channels": 3, "position_channels": 2}


def tiny(**arguments):
    torch.manual_seed(0)
    return PromoterGenerator(**{**TINY, **arguments})


@pytest.fixture(
    params=[
        {},
        {"condition": False},
        {"tracks": 1},
        {"output": "softmax", "position": False},
        {"geometry": "euclidean"},
        {"latents": "gaussian", "position_channels": 1, "condition": False},
        {"codebook_size": 7, "codebook_span": 8},
        {"codebook_size": 7, "codebook_span": 12, "condition": False, "latents": "gaussian"},
        {"codebook_size": 8, "codebook_span": 8, "codebook_clusters": 1},
    ],
    ids=str,
)
def model(request):
    return tiny(**request.param)


def signal_for(model, n, seed=0):
    """Signals, or None for an unconditional model."""
    if not model.conditional:
        return None
    return torch.rand(n, model.length, model.tracks, generator=Generator().manual_seed(seed)).pow(6) * 3


def points(model, n, generator):
    return model(model.latent(n, generator), signal_for(model, n))


def test_outputs_are_points_of_their_geometry(model, generator):
    x = points(model, 50, generator)
    assert x.shape == (50, 24, 4)
    assert x.dtype == torch.float32
    assert (x >= 0).all()
    power = 2 if model.geometry == "spherical" else 1
    torch.testing.assert_close(x.pow(power).sum(-1), torch.ones(50, 24))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, lambda h: h.abs() / h.square().sum(-1, keepdim=True).sqrt()),
        ({"output": "softmax"}, lambda h: (h.exp() / h.exp().sum(-1, keepdim=True)).sqrt()),
        ({"geometry": "euclidean"}, lambda h: h.exp() / h.exp().sum(-1, keepdim=True)),
    ],
)
def test_points_are_normalized_or_softmax_of_the_last_layer(arguments, expected, generator):
    model, seen = tiny(**arguments), []
    model.logits.register_forward_hook(lambda _, inputs, output: seen.append(output))
    x = points(model, 20, generator)
    torch.testing.assert_close(x, expected(seen[0].transpose(1, 2)))


def test_samples_depend_on_the_generator_and_the_signal_alone(model):
    signal = signal_for(model, 100)
    tokens = model.sample(100, Generator().manual_seed(3), signal)
    assert tokens.shape == (100, 24)
    assert tokens.dtype == torch.int64
    assert tokens.unique().tolist() == [0, 1, 2, 3]
    assert torch.equal(model.sample(100, Generator().manual_seed(3), signal, batch_size=7), tokens)
    assert not torch.equal(model.sample(100, Generator().manual_seed(4), signal), tokens)
    assert torch.equal(tokens, model(model.latent(100, Generator().manual_seed(3)), signal).argmax(-1))


@pytest.mark.parametrize("geometry", ["spherical", "euclidean"])
def test_letters_are_sampled_from_the_distributions_that_points_are(geometry, generator):
    """All samples of one latent: shares of letters are squares on the sphere, coordinates in R^4."""
    model = tiny(geometry=geometry, decoding="sampled", condition=False)
    z = model.latent(1, generator).expand(4000, -1)
    model.latent = lambda n, generator: z[:n]
    x = model(z[:1])[0].detach()
    tokens = model.sample(4000, Generator().manual_seed(1))
    p = (x if geometry == "euclidean" else x.square()).double()
    shares = F.one_hot(tokens, 4).double().mean(0)
    assert bool(((shares - p).abs() <= 5 * (p * (1 - p) / 4000).sqrt() + 1e-6).all())
    assert torch.equal(model.sample(4000, Generator().manual_seed(1), batch_size=7), tokens)
    assert (tokens != x.argmax(-1)).any()


def test_latents_are_bernoulli_or_standard_normal(generator):
    bernoulli = tiny().latent(4000, generator)
    assert bernoulli.shape == (4000, 3 + 24 * 2)
    assert {*bernoulli.flatten().tolist()} == {-1.0, 1.0}
    assert bernoulli.mean(0).abs().max() < 5 / 4000**0.5
    gaussian = tiny(latents="gaussian").latent(4000, generator)
    assert gaussian.mean(0).abs().max() < 5 / 4000**0.5
    assert (gaussian.std(0) - 1).abs().max() < 0.06
    assert gaussian.unique().numel() > 100_000


def moved(model, z, other, signal, other_signal):
    with torch.no_grad():
        return (model(z, signal) - model(other, other_signal))[0].abs().amax(-1) > 1e-6


def test_latents_and_signal_of_a_position_enter_there(generator):
    """The first convolution alone, its output not normalised over positions, sees 4 to each side."""
    model = tiny(blocks=0).double()
    model.modulation.forward = lambda h, c: h
    z, signal = model.latent(1, generator), signal_for(model, 1).double()
    for position in (0, 7, 23):
        near = [abs(i - position) <= 4 for i in range(24)]
        other, other_signal = z.clone(), signal.clone()
        other[0, 3 + 2 * position] *= -1
        other_signal[0, position, 1] += 1
        assert moved(model, z, other, signal, signal).tolist() == near
        assert moved(model, z, z, signal, other_signal).tolist() == near


def test_global_channels_reach_all_positions(generator):
    model = tiny(blocks=0)
    z, signal = model.latent(1, generator), signal_for(model, 1)
    other = z.clone()
    other[0, 0] *= -1
    assert moved(model, z, other, signal, signal).all()


def test_a_block_is_a_dilated_convolution_of_modulated_normalised_states(generator):
    """With the convolution as sums over taps, and the norm over channels and positions, written out."""
    torch.manual_seed(0)
    block = Block(width=6, dilation=4, condition=5).double()
    with torch.no_grad():
        block.conv.bias.normal_()
    h, c = (torch.randn(3, *shape, generator=generator).double() for shape in ((6, 40), (5,)))
    shift, scale = (c @ block.modulation.linear.weight.T)[:, :, None].split(6, dim=1)
    normed = (h - h.mean((1, 2), keepdim=True)) / (h.var((1, 2), keepdim=True, correction=0) + 1e-5).sqrt()
    seen = F.pad((1 + scale) * normed + shift, (16, 16))
    taps = [block.conv.weight[:, :, j] @ seen[:, :, 4 * j : 4 * j + 40] for j in range(9)]
    conv = sum(taps) + block.conv.bias[:, None]
    torch.testing.assert_close(block(h, c), h + conv * torch.sigmoid(conv))


def test_dilations_are_those_published():
    model = tiny(blocks=7)
    assert [block.conv.dilation[0] for block in model.blocks] == [1, 1, 4, 16, 64, 1, 1]
    assert {block.conv.kernel_size[0] for block in model.blocks} == {9}


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"output": "softmax"},
        {"geometry": "euclidean", "latents": "gaussian"},
        {"condition": False, "position": False},
        {"width": 64, "blocks": 20},
    ],
    ids=str,
)
def test_untrained_outputs_are_spread_out(arguments, generator):
    """Over samples and along a sequence letters agree hardly more often than in random DNA, 1 in 4.

    On average over networks: of single ones up to 0.33 of the letters agree, and up to 0.41 along a sequence.
    """
    agreeing, repeating, certain = [], [], []
    for seed in range(4):
        torch.manual_seed(seed)
        model = PromoterGenerator(length=256, **arguments)
        with torch.no_grad():
            x = points(model, 64, generator)
        tokens = x.argmax(-1)
        counts = F.one_hot(tokens).sum(0).double()
        agreeing.append(((counts * (counts - 1)).sum(-1) / (64 * 63)).mean())
        repeating.append([(tokens[:, lag:] == tokens[:, :-lag]).double().mean() for lag in (1, 4, 64)])
        certain.append((x.amax(-1) if model.geometry == "euclidean" else x.amax(-1).square()).mean())
    assert np.mean(agreeing) < 0.33
    assert all(0.2 < lag < 0.42 for lag in np.mean(repeating, axis=0))
    assert 0.55 < np.mean(certain) < 0.85  # between the middle, 0.25, and a vertex


@pytest.mark.parametrize("output", ["abs_normalize", "softmax"])
def test_no_letter_is_much_more_frequent_than_others_at_first(output, generator):
    """On average over networks: in one of 80 a letter had half of the positions."""
    rarest, commonest = [], []
    for seed in range(8):
        torch.manual_seed(seed)
        model = PromoterGenerator(length=128, condition=False, output=output)
        shares = model.sample(32, generator).flatten().bincount(minlength=4) / (32 * 128)
        rarest.append(float(shares.min()))
        commonest.append(float(shares.max()))
    assert 0.1 < np.mean(rarest) < np.mean(commonest) < 0.45


@pytest.mark.parametrize("blocks", [5, 20, 40])
def test_states_and_gradients_keep_their_size_through_depth(blocks, generator):
    torch.manual_seed(0)
    model = PromoterGenerator(length=512, width=32, blocks=blocks)
    sizes = []
    for block in model.blocks:
        block.register_forward_hook(lambda _, inputs, output: sizes.append(float(output.detach().std())))
    x = points(model, 4, generator)
    # Each block adds to the states, but for what happens to cancel.
    assert all(after > 0.97 * before for before, after in pairwise(sizes))
    assert 1 < sizes[-1] < 1 + 0.5 * blocks**0.5 + 0.1 * blocks  # sums of independent terms grow as a root
    (x * torch.randn(x.shape, generator=generator)).sum().backward()
    first, last = (block.conv.weight.grad.norm() for block in (model.blocks[0], model.blocks[-1]))
    assert 0.2 < first / last < 20


def test_gradients_reach_every_weight_and_are_finite(model, generator):
    if model.codebook is not None:
        torch.nn.init.normal_(model.logits.weight)  # zero until the first step
    x = points(model, 8, generator)
    (x[..., 0] ** 2).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert (parameter.grad != 0).any(), name


@pytest.mark.parametrize("output", ["abs_normalize", "softmax"])
def test_certain_letters_have_finite_gradients(output):
    model = tiny(output=output)
    with torch.no_grad():
        model.logits.weight.mul_(1e4)
    points(model, 8, Generator().manual_seed(0)).square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_a_saved_model_is_the_same_model(model, tmp_path):
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").is_file()
    assert json.loads((tmp_path / "config.json").read_text())["geometry"] == model.geometry
    again = PromoterGenerator.from_pretrained(tmp_path)
    for name in ("geometry", "latents", "output", "decoding", "tracks"):
        assert getattr(again, name) == getattr(model, name)
    first, second = (
        side.sample(40, Generator().manual_seed(5), signal_for(model, 40)) for side in (again, model)
    )
    assert torch.equal(first, second)


@pytest.mark.parametrize(("preset", "millions"), [("small", 0.54), ("base", 14.98)])
def test_presets_have_their_sizes(preset, millions):
    with torch.device("meta"):
        model = PromoterGenerator(**PRESETS[preset])
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, rel=0.01)


def test_half_precision_stays_inside_the_network(monkeypatch, generator):
    """On a GPU; here the same autocast runs on the CPU, by torch's own convolution.

    That of oneDNN takes AMX instructions, which some virtual machines announce and refuse.
    """
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    model = tiny(bf16=True)
    z, signal = model.latent(64, generator), signal_for(model, 64)
    exact = model(z, signal)
    monkeypatch.setattr(module, "bf16_autocast", lambda *_: torch.autocast("cpu", torch.bfloat16))
    half = model(z, signal)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half.square().sum(-1), torch.ones(64, 24))
    assert 1e-5 < (half - exact).abs().mean() < 0.02


def test_double_weights_give_double_points(generator):
    model = tiny(bf16=True).double()
    x = model(model.latent(8, generator), signal_for(model, 8).double())
    assert x.dtype == torch.float64
    torch.testing.assert_close(x.square().sum(-1), torch.ones(8, 24, dtype=torch.float64), atol=1e-14, rtol=0)
    assert model.sample(8, generator, signal_for(model, 8)).shape == (8, 24)  # signals are float32


def test_a_signal_is_needed_where_it_is_used_and_refused_where_it_is_not(generator):
    conditional, other = tiny(), tiny(condition=False)
    z, signal = conditional.latent(2, generator), signal_for(conditional, 2)
    for call in (lambda: conditional(z), lambda: conditional.sample(2, generator)):
        with pytest.raises(ValueError, match="needs a signal"):
            call()
    for call in (lambda: other(z, signal), lambda: other.sample(2, generator, signal)):
        with pytest.raises(ValueError, match="takes no signal"):
            call()
    with pytest.raises(ValueError, match="takes signals of 2 tracks, got 1"):
        conditional(z, signal[..., :1])
    with pytest.raises(ValueError, match="3 samples of 2 signals"):
        conditional.sample(3, generator, signal)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"geometry": "hyperbolic"}, "hyperbolic"),
        ({"latents": "pink"}, "pink"),
        ({"output": "argmax"}, "argmax"),
        ({"decoding": "likeliest"}, "likeliest"),
        ({"tracks": 0}, "tracks must be 1 or 2, got 0"),
        ({"tracks": 3}, "tracks must be 1 or 2, got 3"),
        ({"global_channels": 0}, "must be at least 1, got 0 and 2"),
        ({"position_channels": 0}, "must be at least 1, got 3 and 0"),
    ],
)
def test_what_makes_no_network_is_refused(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        tiny(**arguments)


def test_sequences_start_from_their_codebook_entries(generator):
    """The network adds nothing at first, and every entry is where its number says."""
    model = tiny(codebook_size=5, codebook_span=8)
    z = model.latent(200, generator)
    assert z.shape == (200, model.latent_dim) == (200, 3 + 24 * 2 + 3)
    numbers = z[:, -3:].long()
    assert sorted(numbers.unique().tolist()) == [0, 1, 2, 3, 4]
    assert {*z[:, :-3].flatten().tolist()} == {-1.0, 1.0}
    h = model.codebook.weight.detach().view(5, 8, 4)[numbers].reshape(200, 24, 4)
    expected = h.abs() / h.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(model(z, signal_for(model, 200)).detach(), expected)


def test_the_network_sees_the_codebook_entries_and_adds_to_them(generator):
    model = tiny(codebook_size=5, codebook_span=8, blocks=0).double()
    torch.nn.init.normal_(model.logits.weight)
    model.modulation.forward = lambda h, c: h
    z, signal = model.latent(1, generator), signal_for(model, 1).double()
    other = z.clone()
    other[0, -2] = (
        z[0, -2] + 1
    ) % 5  # the entry at positions 8 to 15, of which the convolution sees 4 beyond
    changed = moved(model, z, other, signal, signal).tolist()
    assert changed == [4 <= i < 20 for i in range(24)]


def test_codebook_entries_have_gradients_that_move_their_outputs_25_times_as_far(generator):
    model = tiny(codebook_size=5, codebook_span=8)
    x = points(model, 64, generator)
    (x[..., 0] ** 2).sum().backward()
    assert (model.codebook.weight.grad != 0).any(1).all()
    assert float(model.codebook.weight.detach().std()) == pytest.approx(1 / 25, rel=0.2)


def test_codebook_entries_that_do_not_fill_a_sequence_are_refused():
    with pytest.raises(ValueError, match="5 codebook entries of 7 positions do not make up a length of 24"):
        tiny(codebook_size=5, codebook_span=7)


def test_clusters_of_conditions_have_codebook_entries_of_their_own(generator, tmp_path):
    """Every other window is silent, and made of the first entries; the others are made of the last."""
    model = tiny(codebook_size=11, codebook_span=8, codebook_clusters=2)
    model.clusters.centres[1] = 1.0  # the other stays at zero
    signal = torch.zeros(200, 24, 2)
    signal[::2] = 8.0
    z = model.latent(200, generator)
    numbers = z[:, -3:].long()
    assert sorted(numbers.unique().tolist()) == [0, 1, 2, 3, 4]
    assigned = model.clusters.assign(signal, torch.tensor([0, 8, 16]))
    assert assigned.tolist() == [[1] * 3, [0] * 3] * 100
    h = model.codebook.weight.detach().view(11, 8, 4)[numbers + 5 * assigned].reshape(200, 24, 4)
    expected = h.abs() / h.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(model(z, signal).detach(), expected)
    model.save_pretrained(tmp_path)
    assert torch.equal(PromoterGenerator.from_pretrained(tmp_path)(z, signal), model(z, signal))


@pytest.mark.parametrize("arguments", [{"codebook_size": 1}, {"codebook_size": 9, "condition": False}])
def test_clusters_without_codebook_entries_or_conditions_are_refused(arguments):
    with pytest.raises(ValueError, match="2 clusters of conditions cannot share"):
        tiny(codebook_span=8, codebook_clusters=2, **arguments)
