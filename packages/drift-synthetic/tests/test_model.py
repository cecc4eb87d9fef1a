"""The generator: points of its space, draws by seed, saved and read."""

import json
import re
from pathlib import Path

import pytest
import torch
from drift_core.runs.model import load_model
from drift_synthetic import SPACES, Checkerboard, SyntheticGenerator
from drift_synthetic.metrics import tile_accuracy
from torch import Generator

SMALL = {"codebook_size": 32, "width": 32, "blocks": 2}


@pytest.fixture(params=["intrinsic", "euclidean"])
def model(request, space):
    torch.manual_seed(0)
    return SyntheticGenerator(space.name, request.param, **SMALL)


def is_on(space, x) -> bool:
    return torch.allclose(space.manifold.projx(x), x, rtol=0, atol=1e-6)


def test_outputs_are_on_the_space_or_free(model, generator):
    x = model(model.latent(64, generator))
    assert x.shape == (64, len(model.space.columns))
    assert is_on(model.space, x) == (model.geometry == "intrinsic" or model.space.name == "plane")


def test_samples_are_on_the_space_and_depend_on_the_generator_alone(model):
    x = model.sample(100, Generator().manual_seed(3))
    assert is_on(model.space, x)
    assert not x.requires_grad
    torch.testing.assert_close(model.sample(100, Generator().manual_seed(3), batch_size=7), x)
    assert not torch.equal(model.sample(100, Generator().manual_seed(4)), x)
    assert model.sample(0, Generator()).shape == (0, len(model.space.columns))


def test_a_saved_model_is_the_same_model(model, tmp_path):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1)
    model.save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())
    assert (stored["space"], stored["geometry"]) == (model.space.name, model.geometry)
    again = SyntheticGenerator.from_pretrained(tmp_path)
    assert again.space == model.space
    seeds = (Generator().manual_seed(5) for _ in range(2))
    assert torch.equal(again.sample(10, next(seeds)), model.sample(10, next(seeds)))


def test_codebook_entries_are_drawn_evenly_and_set_apart(generator):
    torch.manual_seed(0)
    model = SyntheticGenerator("plane", codebook_size=8)
    z = model.latent(8000, generator)
    assert z[:, 0].long().bincount(minlength=8).tolist() == pytest.approx([1000] * 8, rel=0.15)
    x = model(z).detach()
    within = torch.stack([x[z[:, 0] == k].std(0).norm() for k in range(8)])
    assert within.mean() < 0.5 * x.std(0).norm()


def test_without_a_codebook_a_latent_is_gaussian_alone(generator):
    model = SyntheticGenerator("sphere", codebook_size=0, latent_dim=32, width=16, blocks=1)
    z = model.latent(500, generator)
    assert z.shape == (500, 32)
    assert abs(float(z.std()) - 1) < 0.05
    assert is_on(model.space, model(z))
    assert not any("code" in name for name, _ in model.named_parameters())


def test_points_far_out_on_the_hyperboloid_keep_their_norm_and_finite_gradients():
    """Outputs far beyond the targets' full radius, 2.5: the time coordinate follows from the others."""
    torch.manual_seed(0)
    model = SyntheticGenerator("hyperboloid", **SMALL)
    z = model.latent(1000, Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in model.network[-1].parameters():
            parameter.mul_(10)
    x = model(z)
    assert 2.5 < float(SPACES["hyperboloid"].chart(x.detach()).norm(dim=1).max()) < 2.71
    square = x.detach().square()
    assert float((square[:, 1:].sum(1) - square[:, 0] + 1).abs().max()) < 1e-5
    x.sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)


def test_the_default_has_under_half_a_million_parameters_and_covers_the_middle_of_its_space(space, generator):
    torch.manual_seed(0)
    model = SyntheticGenerator(space.name)
    assert 300_000 < sum(parameter.numel() for parameter in model.parameters()) < 500_000
    u = space.chart(model.sample(2000, generator))
    assert u.isfinite().all()
    assert float(u.std(0).min()) > 0.2
    assert float(u.norm(dim=1).quantile(0.9)) < 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"space": "cube"}, "cube"),
        ({"geometry": "flat"}, "flat"),
        (
            {"codebook_size": 0, "latent_dim": 0},
            "a latent needs codebook entries or normal numbers, got 0 and 0",
        ),
        ({"codebook_size": -1}, "got -1 and 2"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        SyntheticGenerator(**arguments)


def test_without_a_codebook_it_is_a_plain_mlp_of_gaussian_latents(space, generator):
    """As published: linear layers and SiLU, nothing learned that a latent chooses from."""
    torch.manual_seed(0)
    model = SyntheticGenerator(space.name, codebook_size=0, width=64, blocks=3)
    kinds = {type(part) for part in model.network}
    assert kinds == {torch.nn.Linear, torch.nn.SiLU}
    assert not any(isinstance(part, torch.nn.Embedding) for part in model.modules())
    z = model.latent(500, generator)
    assert z.shape == (500, 2)
    x = model(z).detach()
    torch.testing.assert_close(space.manifold.projx(x), x, rtol=1e-5, atol=1e-5)
    near = model(z + 1e-4).detach()
    assert float((near - x).norm(dim=1).max()) < 0.01  # a continuous map
    assert float(x.std(0).max()) > 0.1


def test_the_published_model_scores_as_its_card_says():
    folder = Path(__file__).parents[1] / "models" / "checkerboard-sphere"
    assert (folder / "model.safetensors").stat().st_size < 1_000_000
    x = load_model(SyntheticGenerator, folder).sample(5_000, Generator().manual_seed(0))
    (card,) = re.findall(r"\| tile_accuracy \| ([\d.]+)", (folder / "README.md").read_text())
    space = SPACES["sphere"]
    board = Checkerboard(space.board)
    assert abs(tile_accuracy(board, space.chart(x)) - float(card)) < 0.02
