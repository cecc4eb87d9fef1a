"""Kernels from eigenfunctions: against radial forms, addition theorems and the laws of fields."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from drift_core import (
    SO3,
    Batch,
    Euclidean,
    SpectralField,
    SpectralKernel,
    Sphere,
    SphericalMatern,
    Torus,
    rotation_basis,
    smoothed_score,
    spectral_score,
)
from drift_core.lengthscale import parse_lengthscales
from drift_core.testing import check_field
from torch import Tensor

# What geometric-kernels and its dependencies warn of when they are imported.
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::ImportWarning", "ignore::RuntimeWarning"
)


def sphere(lengthscale: float, nu: float = math.inf, **levels: int) -> SpectralKernel:
    from geometric_kernels.spaces import Hypersphere

    return SpectralKernel(Hypersphere(2), lengthscale, nu, **levels)


def torus(lengthscale: float) -> SpectralKernel:
    from geometric_kernels.spaces import Circle, ProductDiscreteSpectrumSpace

    return SpectralKernel(ProductDiscreteSpectrumSpace(Circle(), Circle(), num_levels=60), lengthscale)


SPACES = {
    "sphere": (Sphere(), 3, sphere),
    "torus": (Torus(2), 2, torus),
    "rotations": (SO3(), 4, partial(SpectralKernel, rotation_basis)),
}


def points_of(name: str, n: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    manifold, d, _ = SPACES[name]
    noise = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return manifold.projx(2 * noise).to(dtype)


@pytest.mark.parametrize("nu", [2.5, math.inf])
def test_on_the_sphere_it_is_the_radial_kernel_of_the_same_series(nu):
    x, y = points_of("sphere", 20, 0), points_of("sphere", 50, 1)
    series = spectral_score(Sphere(), sphere(0.8, nu, levels=16), x, y)
    radial = smoothed_score(Sphere(), SphericalMatern(0.8, nu, levels=15), x, y)
    torch.testing.assert_close(series.gradient, radial.gradient, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(series.log_density, radial.log_density, atol=1e-5, rtol=1e-5)


def test_displacements_are_those_of_the_radial_kernel():
    """With weights, and each query excluded from its own mean."""
    x, y = points_of("sphere", 20, 0), torch.linspace(-1, 1, 20).double()
    options = {"log_weight": y, "self_index": torch.arange(20), "direction": "displacement"}
    series = spectral_score(Sphere(), sphere(0.8, levels=16), x, x, **options)
    radial = smoothed_score(Sphere(), SphericalMatern(0.8, math.inf, levels=15), x, x, **options)
    torch.testing.assert_close(series.gradient, radial.gradient, atol=1e-5, rtol=1e-5)


def test_on_rotations_it_is_the_sum_of_characters():
    from geometric_kernels.kernels import MaternKarhunenLoeveKernel
    from geometric_kernels.spaces import SpecialOrthogonal

    levels, quaternions = 6, points_of("rotations", 12, 0)
    kernel = SpectralKernel(rotation_basis, 1.0, 1.5, levels=levels)
    oracle = MaternKarhunenLoeveKernel(SpecialOrthogonal(3), levels)
    params = {"nu": np.array([1.5]), "lengthscale": np.array([1.0])}
    expected = oracle.K(params, SO3.to_matrix(quaternions).numpy())
    phi = kernel.features(quaternions)
    torch.testing.assert_close(phi @ phi.T, torch.from_numpy(expected), atol=1e-5, rtol=0)
    torch.testing.assert_close(kernel.features(-quaternions), phi)


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize(("scale", "direction"), [("1.2", "gradient"), ("1.2,2", "displacement")])
def test_fields_obey_the_laws(name, scale, direction):
    manifold, _, kernel = SPACES[name]
    field = SpectralField(manifold, kernel, parse_lengthscales(scale), direction)
    check_field(field, Batch(points_of(name, 6, 0), points_of(name, 9, 1)))


@pytest.mark.parametrize("name", SPACES)
def test_the_gradient_is_that_of_the_log_density(name):
    """Along geodesics, in float64; and float32 points give it to float32."""
    manifold, _, make = SPACES[name]
    kernel, x, y = make(1.2), points_of(name, 6, 0), points_of(name, 30, 1)
    score, h = spectral_score(manifold, kernel, x, y), 1e-5
    u = manifold.proju(x, points_of(name, 6, 2))
    ends = [spectral_score(manifold, kernel, manifold.expmap(x, s * h * u), y).log_density for s in (1, -1)]
    torch.testing.assert_close(
        manifold.inner(x, score.gradient, u), (ends[0] - ends[1]) / (2 * h), atol=1e-7, rtol=1e-6
    )
    single = spectral_score(manifold, kernel, x.float(), y.float())
    torch.testing.assert_close(single.gradient, score.gradient.float(), atol=1e-5, rtol=1e-4)


def test_weights_and_exclusion_are_of_references():
    manifold, kernel = Sphere(), sphere(1.0)
    x, y = points_of("sphere", 5, 0), points_of("sphere", 8, 1)
    weighted = spectral_score(manifold, kernel, x, y, log_weight=torch.tensor([0.0] * 3 + [-math.inf] * 5))
    torch.testing.assert_close(weighted.gradient, spectral_score(manifold, kernel, x, y[:3]).gradient)
    own = spectral_score(manifold, kernel, x, x, self_index=torch.arange(5))
    torch.testing.assert_close(own.gradient[:1], spectral_score(manifold, kernel, x[:1], x[1:]).gradient)
    alone = spectral_score(manifold, kernel, x[:1], x[:1], self_index=torch.zeros(1).long())
    assert float(alone.log_density) == -math.inf
    assert float(alone.gradient.abs().max()) == 0
    with pytest.raises(ValueError, match="one log-weight a reference"):
        spectral_score(manifold, kernel, x, y, log_weight=torch.zeros(5, 8))


def test_densities_on_a_graph_are_those_of_the_heat_equation():
    """exp(-l^2 L / 2) of a cycle, by the exponential of its Laplacian."""
    from geometric_kernels.spaces import Graph

    n = 8
    adjacency = np.roll(np.eye(n), 1, 1) + np.roll(np.eye(n), -1, 1)
    kernel = SpectralKernel(Graph(adjacency, normalize_laplacian=False), 1.0, levels=n)
    phi = kernel.features(torch.arange(n)[:, None])
    laplacian = torch.from_numpy(2 * np.eye(n) - adjacency)
    heat = torch.linalg.matrix_exp(-laplacian / 2)
    torch.testing.assert_close(phi @ phi.T, heat / heat.diagonal().mean())


def test_truncated_series_that_are_negative_are_refused_with_the_levels_that_would_do():
    with pytest.raises(
        ValueError, match=r"levels=2 the kernel .* has values down to .*; levels=(\d+) would do"
    ) as no:
        SpectralKernel(rotation_basis, 0.9, levels=2)
    levels = int(str(no.value).split("levels=")[-1].split()[0])
    assert SpectralKernel(rotation_basis, 0.9).levels == levels
    with pytest.raises(
        ValueError, match=r"no number of levels makes the kernel .* take a longer lengthscale"
    ):
        SpectralKernel(rotation_basis, 0.1)


def test_a_raised_kernel_is_positive_by_a_constant():
    short, x = SpectralKernel(rotation_basis, 0.9, levels=2, raised=True), points_of("rotations", 40, 0)
    phi, plain = short.features(x), rotation_basis(2).functions(x)
    weight = torch.exp(-(0.9**2) * rotation_basis(2).eigenvalues / 2)
    constant = phi @ phi.T - (plain * weight / weight.sum()) @ plain.T
    assert 0.05 < float(constant.mean()) < 1
    torch.testing.assert_close(constant, constant.mean().expand_as(constant))
    long = [SpectralKernel(rotation_basis, 2.5, 1.5, levels=6, raised=raised) for raised in (False, True)]
    assert torch.equal(*(kernel.features(x) for kernel in long))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SpectralKernel(rotation_basis, -1.0), "lengthscale must be a positive"),
        (lambda: SpectralKernel(rotation_basis, 1.0, 0.0), "nu must be a positive"),
        (lambda: SpectralKernel(rotation_basis, 1.0, levels=0), "levels must be at least 1"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_spaces_without_explicit_eigenfunctions_are_refused():
    from geometric_kernels.spaces import Hyperbolic, SpecialOrthogonal

    for space in (Hyperbolic(3), SpecialOrthogonal(3)):
        with pytest.raises(ValueError, match="has no eigenfunctions one by one; for rotations"):
            SpectralKernel(space, 1.0)


def test_clouds_are_checked():
    with pytest.raises(ValueError, match="expected clouds"):
        spectral_score(Euclidean(), sphere(1.0), torch.ones(3), torch.ones(2, 3))
