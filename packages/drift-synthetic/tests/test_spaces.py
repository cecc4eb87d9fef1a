"""Spaces beyond the three surfaces: embeddings, targets, files of one's own points, and views."""

import math

import pytest
import torch
from drift_core import SO3
from drift_synthetic import find_space, make_problem, read_problem
from drift_synthetic.globes import from_afar, hopf
from drift_synthetic.metrics import mmd
from drift_synthetic.solids import face_density, on_donut
from drift_synthetic.table import read_csv, write_csv
from drift_synthetic.targets import RotationModes, Spirals, multiply
from torch import Generator

NEW = ("torus", "so3", "product", "mesh")


@pytest.mark.parametrize("name", NEW)
def test_samples_lie_on_their_space_and_files_keep_them(name, tmp_path, generator):
    problem = make_problem(None, name)
    x = problem.sample(200, generator)
    space = problem.space
    torch.testing.assert_close(space.manifold.projx(x), x, rtol=0, atol=1e-6)
    assert x.shape == (200, len(space.columns))
    assert len(space.embed(x)) == 200
    write_csv(tmp_path / "a.csv", space, x)
    torch.testing.assert_close(read_csv(tmp_path / "a.csv", space).float(), x, rtol=0, atol=2e-6)
    outputs = torch.randn(50, space.outputs, generator=generator)
    points = space.point(outputs)
    torch.testing.assert_close(space.manifold.projx(points), points, rtol=0, atol=1e-6)


def test_embeddings_identify_what_is_one_point(generator):
    torus, rotations = find_space("torus"), find_space("so3")
    a = math.pi * (2 * torch.rand(20, 2, generator=generator) - 1)
    torch.testing.assert_close(torus.embed(a + 2 * math.pi), torus.embed(a), rtol=0, atol=1e-5)
    q = SO3().projx(torch.randn(20, 4, generator=generator))
    assert torch.equal(rotations.embed(-q), rotations.embed(q))
    chords = torch.cdist(rotations.embed(q.double()), rotations.embed(q.double()))
    angles = SO3().cdist(q.double(), q.double())
    expected = 2 * 2**0.5 * (angles / 2).sin()
    torch.testing.assert_close(chords, expected, rtol=1e-6, atol=1e-6)


def test_modes_are_the_rotations_of_a_cube(generator):
    target = RotationModes()
    centres = target.centres()
    gaps = SO3().cdist(centres, centres) + 9 * torch.eye(24)
    torch.testing.assert_close(gaps.min(1).values, torch.full((24,), math.pi / 2).double())
    turned = SO3.to_matrix(multiply(centres[:1] * torch.tensor([1.0, -1, -1, -1]).double(), centres))
    torch.testing.assert_close(turned, turned.round(), rtol=0, atol=1e-9)  # signed permutations
    x = target.sample(6_000, generator)
    near, mode = SO3().cdist(x, centres).min(1)
    assert float(near.square().mean() / 3) == pytest.approx(target.deviation**2, rel=0.05)
    assert mode.bincount(minlength=24).tolist() == pytest.approx([250] * 24, rel=0.3)


def test_products_of_quaternions_are_products_of_matrices(generator):
    p, q = torch.nn.functional.normalize(torch.randn(2, 9, 4, generator=generator).double(), dim=-1)
    expected = SO3.to_matrix(p) @ SO3.to_matrix(q)
    torch.testing.assert_close(SO3.to_matrix(multiply(p, q)), expected)


def test_spirals_follow_their_curve(generator):
    target = Spirals()
    x = target.sample(500, generator)
    curve = target.curve(torch.linspace(0, 1, 4_000).double())
    torch.testing.assert_close(curve[:, :3].norm(dim=1), torch.ones(4_000).double())
    assert float(torch.cdist(x, curve).min(1).values.square().mean()) < 5 * 0.03**2
    assert float(torch.cdist(x, curve).min(1).values.max()) < 0.2


def test_mmd_against_all_pairs(generator):
    x, y = (torch.randn(n, 3, generator=generator).double() for n in (20, 30))
    a, b, c = (torch.exp(-torch.cdist(p, q) / 0.2).mean() for p, q in ((x, x), (x, y), (y, y)))
    assert mmd(x, y) == pytest.approx(float((a - 2 * b + c).sqrt()), rel=1e-6)
    assert mmd(x, x) < 1e-7


@pytest.mark.parametrize(
    ("space", "text", "message"),
    [
        ("torus", "phi,psi\n1,2\n\n370,5\n", "line 4: expected two angles in .* radians, found 370, 5"),
        ("so3", "w,x,y,z\n1,0,0,0\n1,1,0,0\n", "line 3: expected a unit quaternion, found 1, 1, 0, 0"),
        ("product", "x,y,z,u,v\n0,0,2,1,1\n", "line 2: expected a unit vector"),
        ("mesh", "x,y,z\n0,0,9\n", "line 2: expected a point on the mesh, found 0, 0, 9"),
        ("torus", "a,b\n1,2\n", "line 1: expected the columns phi,psi of the torus, found a,b"),
        ("torus", "phi,psi\n1,nan\n", "line 2: not finite: 1,nan"),
        ("torus", "phi,psi\n1,two\n", "line 2: not numbers: 1,two"),
        ("torus", "phi,psi\n1\n", "line 2: expected 2 fields, found 1"),
        ("torus", "\n", "empty; expected the columns phi,psi"),
        ("torus", "phi,psi\n1,2\n", "1 points; at least 30 are needed"),
    ],
)
def test_bad_files_are_refused_in_one_line(space, text, message, tmp_path):
    path = tmp_path / "own.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        read_problem(path, space)
    assert "own.csv" in str(error.value)
    assert "\n" not in str(error.value)


def test_files_are_split_with_their_seed(tmp_path):
    rows = "\n".join(f"{k / 50},{-k / 50},{k}" for k in range(100))
    (tmp_path / "own.csv").write_text(f"psi,phi,index\n{rows}\n")
    a, b, c = (read_problem(tmp_path / "own.csv", "torus", split_seed=seed) for seed in (1, 1, 2))
    assert [len(part) for part in (a.train, a.val, a.test)] == [80, 10, 10]
    assert torch.equal(a.test, b.test)
    assert not torch.equal(a.test, c.test)
    together = torch.cat([a.train, a.val, a.test])
    assert sorted(together[:, 1].tolist()) == pytest.approx([k / 50 for k in range(100)])
    assert torch.equal(together[:, 0], -together[:, 1])
    assert len(a.sample(500, Generator())) == 80
    assert len(a.held_out(5, Generator(), "val")) == 5


def test_views_have_their_geometry(generator):
    q = SO3().projx(torch.randn(50, 4, generator=generator).double())
    longitude, latitude, tilt = hopf(q).unbind(1)
    x = torch.stack([latitude.cos() * longitude.cos(), latitude.cos() * longitude.sin(), latitude.sin()], 1)
    torch.testing.assert_close(x, SO3.to_matrix(q)[:, :, 0])
    torch.testing.assert_close(hopf(-q), hopf(q))
    about = torch.tensor([math.cos(0.1), math.sin(0.1), 0, 0]).double()  # a turn by 0.2 about the x axis
    turned = torch.remainder(hopf(multiply(q, about))[:, 2] - tilt, 2 * math.pi)
    torch.testing.assert_close(turned, torch.full((50,), 0.2).double())
    seen = from_afar(torch.eye(3).double())
    torch.testing.assert_close(seen @ seen.T, torch.eye(3).double())
    points, normals = on_donut(torch.rand(20, 2, generator=generator).double())
    torch.testing.assert_close(normals.norm(dim=1), torch.ones(20).double())
    torch.testing.assert_close(
        ((points[:, :2].norm(dim=1) - 1) ** 2 + points[:, 2] ** 2).sqrt(), torch.full((20,), 0.45).double()
    )
    problem = make_problem(None, "mesh")
    density = face_density(problem.space.manifold, problem.sample(300, generator))
    assert float(density.min()) >= 0
    assert 1.5 < float(density.max()) < 20
