"""The parts of a run: files, snapshots, fields, and what is refused."""

import math

import numpy as np
import pytest
import torch
from drift_core import Euclidean
from drift_core.runs.domain import untrained
from drift_core.runs.folder import Place
from drift_core.runs.main import load_run, report, train_generator
from drift_core.training.loop import train
from drift_core.training.parallel import make_accelerator
from drift_synthetic.data import make_problem
from drift_synthetic.domain import DOMAIN, SyntheticConfig, SyntheticRun, evolution, fields_on_lattice
from drift_synthetic.snapshots import read_snapshots, snapshot_steps
from drift_synthetic.table import read_csv, write_csv

TINY = {"steps": 16, "batch_size": 32, "log_every": 8, "warmup_steps": 2}


def run(folder, config) -> SyntheticRun:
    """Train and keep snapshots, as the application does."""
    return train_generator(DOMAIN, config, Place(folder), make_accelerator())


def parts(config):
    """Untrained generator, field and sampler of data: what `train` takes."""
    problem = DOMAIN.load(config)
    return untrained(DOMAIN, config, problem), DOMAIN.field(config, problem), problem.sample


def test_files_hold_ambient_and_chart_coordinates_to_nine_digits(space, tmp_path, generator):
    u = torch.randn(50, 2, generator=generator, dtype=torch.float64).clamp(-1.4, 1.4)
    x = space.lift(u)
    write_csv(tmp_path / "a.csv", space, x)
    header, *rows = (tmp_path / "a.csv").read_text().splitlines()
    assert header == {"plane": "x,y", "sphere": "x,y,z", "hyperboloid": "t,x,y"}[space.name] + ",u1,u2"
    table = np.array([[float(field) for field in row.split(",")] for row in rows])
    np.testing.assert_allclose(table, torch.cat([x, u], dim=1).numpy(), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(read_csv(tmp_path / "a.csv", space), x, rtol=1e-8, atol=1e-8)


def test_a_file_of_another_space_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text("x,y,u1,u2\n1,2,1,2\n")
    with pytest.raises(
        ValueError,
        match=r"a.csv, line 1: expected the columns x,y,z of the sphere, found x,y,u1,u2, without z",
    ):
        read_csv(tmp_path / "a.csv", make_problem().space)


@pytest.mark.parametrize("steps", [1, 3, 16, 6000])
def test_snapshots_begin_at_the_start_and_end_half_way(steps):
    marks = snapshot_steps(steps)
    assert marks == sorted(set(marks))
    assert (marks[0], marks[-1]) == (0, steps // 2)
    assert len(marks) <= 5


@pytest.mark.parametrize("geometry", ["intrinsic", "euclidean"])
def test_snapshots_are_the_batches_of_training_and_change_nothing_else(tmp_path, geometry):
    config = SyntheticConfig.of(**TINY, space="hyperboloid", geometry=geometry)
    seen = []
    generator, field, sample_data = parts(config)
    generator.register_forward_hook(lambda module, args, x: seen.append(x.detach()))
    plain = train(generator, field, sample_data, config, tmp_path / "plain")
    kept, problem = run(tmp_path / "kept", config).generator, DOMAIN.load(config)
    assert all(map(torch.equal, plain.state_dict().values(), kept.state_dict().values()))
    snapshots = read_snapshots(tmp_path / "kept", problem.space)
    assert list(snapshots) == [0, 1, 2, 4, 8]
    for step, points in snapshots.items():
        projected = problem.space.manifold.projx(seen[step])
        torch.testing.assert_close(points.float(), projected, rtol=1e-6, atol=1e-6)


def test_training_on_the_hyperboloid_keeps_every_sample_finite_and_on_it(tmp_path):
    """The Minkowski norm of all float32 samples is within 1e-5 of -1, summed in float64."""
    config = SyntheticConfig.of(**{**TINY, "steps": 150, "batch_size": 128}, space="hyperboloid")
    worst, farthest = [], []

    def check(module, args, x):
        square = x.detach().double().square()
        worst.append(float((square[:, 1:].sum(1) - square[:, 0] + 1).abs().max()))
        farthest.append(float(x.detach()[:, 0].max()))

    generator, field, sample_data = parts(config)
    generator.register_forward_hook(check)
    train(generator, field, sample_data, config, tmp_path)
    assert max(worst) < 1e-5
    assert max(farthest) > 0.8 * math.cosh(2.5)  # training has reached the corners of the board


def test_a_report_writes_what_a_run_promises(tmp_path):
    config = SyntheticConfig.of(**TINY, target="swiss-roll", space="plane")
    report(DOMAIN, run(tmp_path, config))
    figures = {path.name for path in (tmp_path / "figures").iterdir()}
    assert figures == {"samples.png", "evolution.png", "field.png", "training.png"}
    again = load_run(DOMAIN, tmp_path)
    samples = DOMAIN.sample(again, 5_000, seed=0)
    stored = read_csv(tmp_path / "samples.csv", samples.space)
    torch.testing.assert_close(stored.float(), samples.points, rtol=1e-6, atol=1e-6)
    row = evolution(again)
    assert list(row.panels) == ["step 0", "step 1", "step 2", "step 4", "step 8", "step 16"]
    assert row.title == "intrinsic gradient"


def test_both_directions_of_the_field_are_drawn_and_differ():
    x, fields = fields_on_lattice(SyntheticConfig.of(space="hyperboloid", lengthscale="0.5"))
    assert list(fields) == ["Displacement", "Kernel gradient"]
    a, b = fields.values()
    assert a.shape == b.shape == x.shape
    cosine = torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0)
    assert 0.2 < float(cosine) < 0.99


def test_gaussian_fields_of_both_directions_differ_by_the_square_of_the_lengthscale():
    _, fields = fields_on_lattice(SyntheticConfig.of(kernel="gaussian", lengthscale="0.5"))
    displacement, gradient = fields.values()
    torch.testing.assert_close(displacement, 0.25 * gradient, rtol=1e-3, atol=1e-4)


def test_settings_decide_the_parts():
    config = SyntheticConfig.of(
        space="hyperboloid", geometry="euclidean", direction="displacement", codebook_size=0
    )
    generator, field, _ = parts(config)
    assert isinstance(field.manifold, Euclidean)
    assert field.direction == "displacement"
    assert generator.codebook is None
    assert generator.geometry == "euclidean"
    again, other = (parts(config.replace(seed=seed))[0] for seed in (0, 1))
    weights = [torch.nn.utils.parameters_to_vector(g.parameters()) for g in (generator, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


EVERYWHERE = [("laplace", None), ("gaussian", None), ("matern", None), ("matern", 0.7), ("matern", math.inf)]
ON_THE_SPHERE = [("spectral", 0.5), ("spectral", 2.5), ("spectral", math.inf)]


@pytest.mark.parametrize(
    ("space", "geometry", "kernel", "nu"),
    [
        (space, geometry, *kernel)
        for space in ("plane", "sphere", "hyperboloid")
        for geometry in ("intrinsic", "euclidean")
        for kernel in EVERYWHERE + ON_THE_SPHERE * ((space, geometry) == ("sphere", "intrinsic"))
    ],
)
def test_every_kernel_trains_on_every_space_by_default(space, geometry, kernel, nu, tmp_path):
    settings = {**TINY, "space": space, "geometry": geometry, "kernel": kernel, "nu": nu}
    for target in ("checkerboard", "swiss-roll"):
        config = SyntheticConfig.of(**settings, target=target)
        generator, field, sample_data = parts(config)
        trained = train(generator, field, sample_data, config.replace(steps=2), tmp_path / target)
        assert all(bool(p.isfinite().all()) for p in trained.parameters())


def test_a_lengthscale_can_be_read_off_the_data():
    scales = parts(SyntheticConfig.of(lengthscale="auto"))[1].lengthscales
    assert 0.02 < scales.stop[0] < 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kernel": "spectral", "space": "plane"}, "`kernel` spectral needs `space` sphere or mesh"),
        ({"kernel": "spectral", "geometry": "euclidean"}, "got sphere and euclidean"),
        ({"lengthscale": "wide"}, "lengthscale 'wide'"),
        ({"max_step": 4.0}, r"max_step must lie in \(0, 3.142\)"),
        ({"kernel": "matern", "nu": -1.0}, "nu"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        run(tmp_path / "run", SyntheticConfig.of(**settings))
    assert not list(tmp_path.iterdir())


def test_a_run_without_a_model_is_refused(tmp_path):
    run(tmp_path, SyntheticConfig.of(**{**TINY, "steps": 1}))
    with pytest.raises(ValueError, match="has no trained model yet"):
        load_run(DOMAIN, tmp_path)


def test_the_paper_recipe_is_the_published_setting():
    """Gaussian latents alone, and a constant learning rate after its warm-up."""
    config = SyntheticConfig.of(**DOMAIN.recipes["paper"])
    assert parts(config)[0].codebook is None
    rates = [config.optimizer.lr_at(step) for step in (100, config.optimizer.steps - 1)]
    assert rates == [config.optimizer.lr] * 2
