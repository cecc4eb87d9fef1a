import json
from hashlib import sha256
from pathlib import Path

import huggingface_hub
import pytest
import torch
from drift_core.runs.model import load_model
from drift_sphere import SphereGenerator
from drift_sphere.model import to_sphere
from torch import Generator

PUBLISHED = Path(__file__).parents[1] / "models" / "earthquake"


@pytest.fixture(params=["spherical", "euclidean"])
def model(request):
    torch.manual_seed(0)
    return SphereGenerator(codebook_size=32, width=32, blocks=2, geometry=request.param)


def test_outputs_are_on_the_sphere_or_free(model, generator):
    x = model(model.latent(64, generator))
    on_sphere = torch.allclose(x.norm(dim=-1), torch.ones(64))
    assert x.shape == (64, 3)
    assert on_sphere == (model.geometry == "spherical")


def test_samples_are_on_the_sphere_and_depend_on_the_generator_alone(model):
    x = model.sample(100, Generator().manual_seed(3))
    torch.testing.assert_close(x.norm(dim=-1), torch.ones(100))
    assert not x.requires_grad
    torch.testing.assert_close(model.sample(100, Generator().manual_seed(3), batch_size=7), x)
    assert not torch.equal(model.sample(100, Generator().manual_seed(4)), x)
    assert model.sample(0, Generator()).shape == (0, 3)


def test_a_saved_model_is_the_same_model(model, tmp_path):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1)
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").is_file()
    assert json.loads((tmp_path / "config.json").read_text())["geometry"] == model.geometry
    again = SphereGenerator.from_pretrained(tmp_path)
    assert again.geometry == model.geometry
    seeds = (Generator().manual_seed(5) for _ in range(2))
    assert torch.equal(again.sample(10, next(seeds)), model.sample(10, next(seeds)))


def test_the_default_has_under_half_a_million_parameters_and_starts_near_uniform(generator):
    torch.manual_seed(0)
    model = SphereGenerator()
    assert 300_000 < sum(parameter.numel() for parameter in model.parameters()) < 500_000
    x = model.sample(4000, generator)
    assert x.mean(0).norm() < 0.15  # of 2,048 uniform codes: 0.02; of a point: 1
    eigenvalues = torch.linalg.eigvalsh(x.T @ x / 4000)
    assert eigenvalues.min() > 0.15  # uniform: 1/3 each


def test_projection_is_safe_at_zero():
    x = torch.tensor([[0.0, 0.0, 0.0], [0.0, 3.0, 4.0], [1e-30, 0.0, 0.0]], requires_grad=True)
    y = to_sphere(x)
    y.sum().backward()
    assert y.tolist() == [[0, 0, 1], [0, pytest.approx(0.6), pytest.approx(0.8)], [0, 0, 1]]
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_an_unknown_geometry_is_refused():
    with pytest.raises((ValueError, TypeError), match="hyperbolic"):
        SphereGenerator(geometry="hyperbolic")


def test_codes_are_drawn_evenly_and_set_apart(generator):
    torch.manual_seed(0)
    model = SphereGenerator(codebook_size=8, branches=2)
    z = model.latent(16_000, generator)
    assert z[:, 0].long().bincount(minlength=16).tolist() == pytest.approx([1000] * 16, rel=0.15)
    x = model(z).detach()
    within = torch.stack([x[z[:, 0] == k].std(0).norm() for k in range(16)])
    assert within.mean() < 0.5 * x.std(0).norm()


@pytest.mark.parametrize("geometry", ["spherical", "euclidean"])
def test_a_branch_is_a_step_from_where_its_code_is(geometry, generator):
    torch.manual_seed(0)
    model = SphereGenerator(codebook_size=3, branches=4, geometry=geometry).double()
    z = model.latent(1, generator).repeat(12, 1)
    z[:, 0] = torch.arange(12)
    before = model(z).detach()
    assert len(before.unique(dim=0)) == 3  # the branches of a code start as one
    torch.nn.init.normal_(model.branch.weight, std=1e-4)
    after = model(z).detach()
    assert len(after.unique(dim=0)) == 12
    step = 5 * model.branch.weight.detach()
    if geometry == "spherical":
        step = step - (step * before).sum(1, keepdim=True) * before
    torch.testing.assert_close(after - before, step, atol=1e-5, rtol=0)


@pytest.mark.parametrize("geometry", ["spherical", "euclidean"])
def test_the_last_step_is_even_in_all_directions_and_not_seen_by_the_network(geometry, generator):
    torch.manual_seed(0)
    model = SphereGenerator(codebook_size=8, spread=0.01, geometry=geometry).double()
    z = model.latent(1, generator).repeat(20_000, 1)
    z[:, -3:] = torch.randn(20_000, 3, generator=generator)
    x = model(z).detach()
    still = model(torch.cat([z[:1, :-3], torch.zeros(1, 3)], dim=1)).detach()
    variances = torch.linalg.eigvalsh((x - still).T @ (x - still) / len(x)) / 0.01**2
    expected = torch.tensor([0.0, 1.0, 1.0] if geometry == "spherical" else [1.0, 1.0, 1.0]).to(variances)
    torch.testing.assert_close(variances, expected, atol=0.05, rtol=0)


def test_a_negative_spread_is_refused():
    with pytest.raises(ValueError, match="spread must not be negative, got -1"):
        SphereGenerator(spread=-1.0)


@pytest.fixture(params=["spherical", "euclidean"])
def plain(request):
    torch.manual_seed(0)
    return SphereGenerator(codebook_size=0, width=32, blocks=2, geometry=request.param)


def test_without_codes_a_latent_is_noise_alone(plain, generator):
    assert not any(isinstance(part, torch.nn.Embedding) for part in plain.modules())
    z = plain.latent(4000, generator)
    assert z.shape == (4000, 16)
    torch.testing.assert_close(z.T.cov(), torch.eye(16), atol=0.1, rtol=0)
    norms = plain(z).norm(dim=-1)
    assert torch.allclose(norms, torch.ones(4000)) == (plain.geometry == "spherical")
    samples = plain.sample(4000, generator)
    torch.testing.assert_close(samples.norm(dim=-1), torch.ones(4000))


def test_without_codes_the_map_is_continuous(plain, generator):
    """Noise that is near makes points that are near, which codes do not."""
    z = plain.double().latent(200, generator)
    step = 1e-6 * torch.randn(z.shape, generator=generator)
    moved = (plain(z + step) - plain(z)).detach().norm(dim=-1)
    assert float(moved.max()) < 1e-3


def test_a_saved_model_without_codes_is_the_same_model(plain, tmp_path):
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.add_(0.1)
    plain.save_pretrained(tmp_path)
    again = SphereGenerator.from_pretrained(tmp_path)
    assert (again.geometry, again.codebook) == (plain.geometry, None)
    seeds = (Generator().manual_seed(5) for _ in range(2))
    assert torch.equal(again.sample(10, next(seeds)), plain.sample(10, next(seeds)))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_generator_without_codes_starts_near_uniform(seed):
    torch.manual_seed(seed)
    model = SphereGenerator(codebook_size=0, width=256)
    x = model.sample(4000, Generator().manual_seed(0))
    assert x.mean(0).norm() < 0.3  # of a point: 1
    assert torch.linalg.eigvalsh(x.T @ x / 4000).min() > 0.15  # uniform: 1/3 each


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"codebook_size": -1}, "codebook_size must not be negative, got -1"),
        ({"branches": 0}, "branches must be at least 1, got 0"),
        (
            {"codebook_size": 0, "branches": 16},
            "branches and spread need a codebook; got 16 and None",
        ),
        ({"codebook_size": 0, "spread": 1e-3}, "got None and 0.001 without one"),
        ({"codebook_size": 0, "latent_dim": 0}, "latent_dim must be at least 1, got 0"),
        ({"latent_dim": 2}, "latent_dim is for no codebook; got 2 and 2048 entries"),
    ],
    ids=str,
)
def test_arguments_that_contradict_one_another_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        SphereGenerator(**arguments)


def test_the_published_model_loads_offline_and_is_small(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = Path(__file__).parents[1] / "models" / "earthquake"
    assert (folder / "model.safetensors").stat().st_size < 1_000_000
    x = load_model(SphereGenerator, folder).sample(2_000, Generator().manual_seed(0))
    torch.testing.assert_close(x.norm(dim=-1), torch.ones(2_000))
    assert len(x.unique(dim=0)) > 1_990


@pytest.fixture
def hub_cache(tmp_path, monkeypatch) -> Path:
    """The cache of a machine without a network, that once downloaded the model someone/earthquake."""
    commit, repository = "0" * 40, tmp_path / "models--someone--earthquake"
    for path in PUBLISHED.iterdir():
        blob = repository / "blobs" / sha256(path.read_bytes()).hexdigest()
        link = repository / "snapshots" / commit / path.name
        for file in (blob, link):
            file.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(path.read_bytes())
        link.symlink_to(Path("../../blobs") / blob.name)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path


@pytest.mark.usefixtures("hub_cache")
def test_a_model_of_the_hub_loads_by_name_from_the_cache():
    folder, name = (SphereGenerator.from_pretrained(where) for where in (PUBLISHED, "someone/earthquake"))
    assert name.state_dict().keys() == folder.state_dict().keys()
    drawn = [model.sample(100, Generator().manual_seed(0)) for model in (folder, name)]
    assert torch.equal(*drawn)
    with pytest.raises(huggingface_hub.errors.LocalEntryNotFoundError):
        SphereGenerator.from_pretrained("someone/volcano")
