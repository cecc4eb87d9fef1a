"""Meshes: what is a closed surface, nearest points, eigenfunctions, and the field of spectral kernels."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from drift_core import Batch, SpectralField, SpectralKernel, spectral_score
from drift_core.lengthscale import Lengthscales
from drift_core.testing import check_field
from drift_synthetic.laplacian import spectrum
from drift_synthetic.location import nearest_on_triangles
from drift_synthetic.mesh import areas, make_mesh, read_mesh, trefoil
from drift_synthetic.spectral import surface_basis, surface_kernel
from drift_synthetic.surface import Surface
from drift_synthetic.targets import VertexDensity, eigenfunction
from torch import Generator, Tensor

CORNERS = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=float)
FACES = np.array([[0, 1, 2], [0, 3, 1], [0, 2, 3], [1, 3, 2]])


@pytest.fixture(scope="module")
def knot() -> Surface:
    return Surface(trefoil(60, 10))


def ball(subdivisions: int = 3):
    """Sphere of radius 2 about (5, 0, 0) by subdivision of an icosahedron."""
    import trimesh

    found = trimesh.creation.icosphere(subdivisions, radius=2.0)
    return found.vertices + np.array([5.0, 0, 0]), np.asarray(found.faces, dtype=np.int64)


def write_obj(path, vertices, faces):
    lines = [f"v {' '.join(map(str, v))}" for v in vertices] + [
        f"f {' '.join(map(str, f + 1))}" for f in faces
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_mesh_has_the_area_of_the_unit_sphere_and_is_turned_outside_out():
    for faces in (FACES, FACES[:, ::-1].copy()):
        mesh = make_mesh(CORNERS, faces)
        corners = mesh.vertices[mesh.faces]
        assert float(areas(corners).sum()) == pytest.approx(4 * math.pi)
        normals = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        assert bool(((normals * corners.mean(1)).sum(1) > 0).all())
        torch.testing.assert_close(mesh.centre + mesh.scale * mesh.vertices, torch.from_numpy(CORNERS))


def test_files_of_both_formats_and_with_repeated_corners_are_read(tmp_path):
    import trimesh

    mesh = make_mesh(CORNERS, FACES)
    soup = write_obj(tmp_path / "a.obj", CORNERS[FACES].reshape(-1, 3), np.arange(12).reshape(4, 3))
    trimesh.Trimesh(CORNERS, FACES, process=False).export(tmp_path / "a.ply")
    for found in (read_mesh(soup), read_mesh(tmp_path / "a.ply")):
        assert found.vertices.shape == (4, 3)
        a, b = (m.vertices[m.faces].mean(1) for m in (found, mesh))
        torch.testing.assert_close(a[a[:, 0].argsort()], b[b[:, 0].argsort()], rtol=0, atol=1e-6)


def flipped(faces):
    return np.concatenate([faces[:1, ::-1], faces[1:]])


@pytest.mark.parametrize(
    ("vertices", "faces", "message"),
    [
        (CORNERS, FACES[1:], "a hole: 3 edges have one face only, the first is of face 1"),
        (CORNERS, flipped(FACES), "flipped faces: face 1 and a neighbour"),
        (CORNERS, np.concatenate([FACES, FACES[:1]]), "an edge of face 1 has more than two faces"),
        (np.concatenate([CORNERS, CORNERS + 5]), np.concatenate([FACES, FACES + 4]), "2 separate parts"),
        (CORNERS * [1, 1, np.nan], FACES, "vertex 1 is not finite"),
        (CORNERS * [1, 0, 0], FACES, "face 1 is degenerate"),
        (
            np.concatenate([CORNERS, 2 - CORNERS[1:]]),
            np.concatenate([FACES, np.where(FACES > 0, FACES + 3, 0)[:, ::-1]]),
            "touch in a vertex only",
        ),
    ],
    ids=["hole", "flipped", "three faces", "parts", "nan", "flat", "pinched"],
)
def test_what_is_not_a_closed_surface_is_refused(vertices, faces, message, tmp_path):
    with pytest.raises(ValueError, match=message) as error:
        read_mesh(write_obj(tmp_path / "bad.obj", vertices, faces))
    assert "bad.obj" in str(error.value)
    assert "\n" not in str(error.value)


def test_files_that_are_no_mesh_are_refused(tmp_path):
    (tmp_path / "a.obj").write_text("hello\n")
    (tmp_path / "a.stl").write_text("")
    for name, kind, message in (
        ("a.obj", ValueError, "a.obj"),
        ("a.stl", ValueError, "expected a file of .obj or .ply"),
        ("b.obj", FileNotFoundError, "no such file"),
    ):
        with pytest.raises(kind, match=message):
            read_mesh(tmp_path / name)


def test_nearest_points_are_those_of_all_faces(knot, generator):
    """Near the surface, within the tube, and far from it, against all faces and dense points of them."""
    x = torch.cat([knot.mesh.corners[::90].mean(1), torch.randn(20, 3, generator=generator).double()])
    x = x + 0.02 * torch.randn(x.shape, generator=generator)
    points, weights = nearest_on_triangles(x, knot.mesh.corners.expand(len(x), -1, -1, -1))
    nearest = (points - x[:, None]).norm(dim=2).min(1).values
    torch.testing.assert_close((knot.projx(x) - x).norm(dim=1), nearest, rtol=0, atol=1e-12)
    assert float(weights.min()) >= 0
    torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:2]).double())
    dense = torch.distributions.Dirichlet(torch.ones(3).double()).sample((400,))
    cloud = (dense @ knot.mesh.corners).reshape(-1, 3)
    assert bool((torch.cdist(x, cloud).min(1).values >= nearest - 1e-9).all())


def test_projection_is_idempotent_and_tangents_lie_in_faces(knot, generator):
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.float64, 1e-12)):
        x = knot.projx(torch.randn(2, 20, 3, generator=generator, dtype=torch.float64).to(dtype))
        assert x.dtype == dtype
        torch.testing.assert_close(knot.projx(x), x, rtol=0, atol=tolerance)
        u = knot.proju(x, torch.randn(x.shape, generator=generator).to(dtype))
        torch.testing.assert_close(knot.proju(x, u), u, rtol=0, atol=10 * tolerance)
        torch.testing.assert_close(knot.expmap(x, 0 * u), x, rtol=0, atol=tolerance)
    x = x.flatten(0, 1)
    pairs, weight = knot.pairs(x, x), torch.rand(len(x), len(x), generator=generator).double()
    torch.testing.assert_close(pairs.dist, (x[:, None] - x).norm(dim=-1))
    logs = knot.logmap(x[:, None].expand(-1, len(x), -1).reshape(-1, 3), x.repeat(len(x), 1))
    expected = (weight.flatten()[:, None] * logs).reshape(len(x), len(x), 3).sum(1)
    torch.testing.assert_close(pairs.direction_sum(weight * pairs.dist), expected)


def test_gradients_of_the_projection_are_tangent_and_lead_back_to_the_surface(knot, generator):
    """Tangent gradients pass; at a height h over a face they gain h / 0.25 of their length on the normal."""
    normal, height = knot.mesh.normals[::100], 0.05
    outputs = (knot.mesh.corners[::100].mean(1) + height * normal).requires_grad_()
    points = knot.projx(outputs)
    tangent = knot.proju(points.detach(), torch.randn(points.shape, generator=generator).double())
    (gradient,) = torch.autograd.grad((tangent * points).sum(), outputs)
    back = tangent.norm(dim=1, keepdim=True) * height / 0.25 * normal
    torch.testing.assert_close(gradient, tangent + back)


def test_errors_of_steps_on_a_fine_sphere_are_of_third_order():
    """expmap against the great circle: a step of length u is off by its cube, and by the facets."""
    surface, step = Surface(make_mesh(*ball(4))), 0.2
    x = surface.projx(torch.tensor([[0.3, 0.5, 0.8]]).double())
    u = surface.proju(x, torch.tensor([[1.0, 0.0, 0.0]]).double())
    u = step * u / u.norm()
    end = torch.cos(u.norm()) * x + torch.sin(u.norm()) * u / u.norm()
    assert float((surface.expmap(x, u) - end).norm()) < step**3 / 2


def test_eigenvalues_of_a_sphere_and_orthonormal_eigenfunctions():
    mesh = make_mesh(*ball())
    found = spectrum(mesh, 16)
    expected = torch.tensor([0.0] + [2.0] * 3 + [6.0] * 5 + [12.0] * 7).double()
    torch.testing.assert_close(found.values, expected, rtol=0.02, atol=1e-9)
    mass = torch.zeros(len(mesh.vertices)).double()
    mass.index_add_(0, mesh.faces.flatten(), areas(mesh.vertices[mesh.faces]).repeat_interleave(3) / 3)
    gram = found.functions.T @ (mass[:, None] * found.functions)
    torch.testing.assert_close(gram, torch.eye(16).double(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("nu", [1.5, math.inf])
def test_kernels_are_the_series_and_the_constant_that_makes_it_positive(knot, nu):
    functions, lengthscale = spectrum(knot.mesh, 40), 0.4
    kernel = SpectralKernel(partial(surface_basis, knot), lengthscale, nu, levels=40, raised=True)
    weight = torch.exp(-(lengthscale**2) * functions.values / 2)
    if nu < math.inf:
        weight = (2 * nu / lengthscale**2 + functions.values) ** -(nu + 1)
    series = (functions.functions * weight / weight.sum() * 4 * math.pi) @ functions.functions.T
    phi = kernel.features(knot.mesh.vertices)
    constant = phi @ phi.T - series
    assert float(series.min()) < -0.01
    torch.testing.assert_close(constant, constant.mean().expand_as(constant), rtol=0, atol=1e-9)
    assert 0 < float((phi @ phi.T).min()) < 1e-6


def features(kernel: SpectralKernel, surface: Surface, x: Tensor) -> Tensor:
    """Features at x from those at the vertices, by barycentric coordinates of the nearest face."""
    face = surface.locate(x).face
    inverse = torch.linalg.pinv(torch.cat([surface.mesh.corners[face].mT, torch.ones(len(x), 1, 3)], dim=1))
    weight = inverse @ torch.cat([x, torch.ones(len(x), 1).double()], dim=1)[:, :, None]
    return (weight * kernel.features(surface.mesh.vertices)[surface.mesh.faces[face]]).sum(1)


@pytest.mark.parametrize("nu", [1.5, math.inf])
def test_the_field_is_the_gradient_of_the_log_density(knot, nu, generator):
    """Against float64 autograd of all pairs of features, each sample excluded from its own repulsion."""
    kernel = surface_kernel(knot, nu, 0.4)
    x = knot.mesh.corners[::100].mean(1)  # within faces: across an edge the gradient jumps
    y = knot.projx(torch.randn(30, 3, generator=generator).double())
    own, others = features(kernel, knot, x.requires_grad_()), features(kernel, knot, y)
    pairs = own @ own.detach().T
    log_ratio = (own @ others.T).sum(1).log() - (pairs.sum(1) - pairs.diagonal()).log()
    (expected,) = torch.autograd.grad(log_ratio.sum(), x)
    field = SpectralField(knot, partial(surface_kernel, knot, nu), Lengthscales((0.4,)))
    found = field(Batch(x.detach(), y)).field
    torch.testing.assert_close(found, knot.proju(x.detach(), expected), rtol=1e-6, atol=1e-9)
    single = field(Batch(x.detach().float(), y.float())).field
    torch.testing.assert_close(single, found.float(), rtol=1e-3, atol=1e-4)


def test_the_displacement_is_the_mean_of_logarithms(knot, generator):
    kernel = surface_kernel(knot, 1.5, 0.4)
    x, y = (knot.projx(torch.randn(n, 3, generator=generator).double()) for n in (5, 7))
    weight = features(kernel, knot, x) @ features(kernel, knot, y).T
    assert float(weight.min()) > 0
    logs = torch.stack([knot.logmap(x, yj.expand_as(x)) for yj in y], dim=1)
    expected = ((weight / weight.sum(1, keepdim=True))[:, :, None] * logs).sum(1)
    score = spectral_score(knot, kernel, x, y, direction="displacement")
    torch.testing.assert_close(score.gradient, expected)


@pytest.mark.parametrize("direction", ["gradient", "displacement"])
def test_fields_of_a_surface_obey_the_laws(knot, direction, generator):
    x, y = (knot.projx(torch.randn(9, 3, generator=generator).double()) for _ in range(2))
    make = partial(surface_kernel, knot, math.inf)
    check_field(SpectralField(knot, make, Lengthscales((0.3, 0.6)), direction), Batch(x, y))


def test_vertex_densities_are_sampled_exactly(generator):
    """On a tetrahedron with mass at one corner, moments of barycentric coordinates are Dirichlet's."""
    mesh = make_mesh(CORNERS, FACES)
    target = VertexDensity(mesh, torch.tensor([1.0, 0, 0, 0]).double(), "corner")
    at = Surface(mesh).locate(target.sample(20_000, generator))
    assert set(at.face.tolist()) == {0, 1, 2}
    share = at.weight[mesh.faces[at.face] == 0]
    assert float(share.mean()) == pytest.approx(1 / 2, abs=0.01)
    assert float(share.square().mean()) == pytest.approx(3 / 10, abs=0.01)
    assert min(at.face.bincount()[:3].tolist()) > 6_300
    knot = trefoil(60, 10)
    x = eigenfunction(knot, 20).sample(500, Generator().manual_seed(0))
    values = spectrum(knot).functions[:, 20]
    around = Surface(knot).locate(x)
    assert float((around.weight * values[knot.faces[around.face]]).sum(1).min()) > -float(values.max()) / 2
