"""Kernels of continuous spectra: against closed forms of the heat kernel, isometries and laws of fields."""

import math
from collections.abc import Callable
from functools import partial

import geoopt
import numpy as np
import pytest
import torch
from accelerate import Accelerator
from drift_core import (
    Batch,
    GeooptManifold,
    Hyperboloid,
    Manifold,
    SpectralField,
    SpectralKernel,
    TrainConfig,
    hyperbolic_basis,
    spd_basis,
    spectral_score,
    train,
)
from drift_core.lengthscale import parse_lengthscales
from drift_core.testing import check_field
from drift_core.training.samplers import resample
from scipy.integrate import quad
from torch import Tensor, nn

# What geoopt, geometric-kernels and their dependencies warn of when they are imported and used.
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::ImportWarning", "ignore::RuntimeWarning", "ignore::FutureWarning"
)
RADIUS = 1.2
BASES = {"hyperbolic": hyperbolic_basis, "spd": spd_basis}


def manifold_of(name: str) -> Manifold:
    return Hyperboloid() if name == "hyperbolic" else GeooptManifold(geoopt.SymmetricPositiveDefinite())


def kernel_of(name: str, lengthscale: float, nu: float = math.inf, **options: int) -> SpectralKernel:
    return SpectralKernel(partial(BASES[name], radius=RADIUS), lengthscale, nu, **options)


def points_of(name: str, n: int, seed: int, radius: float = RADIUS) -> Tensor:
    """Points that fill the ball."""
    generator, d = torch.Generator().manual_seed(seed), 2 if name == "hyperbolic" else 3
    noise = torch.randn(n, d, generator=generator, dtype=torch.float64)
    length = radius * torch.rand(n, 1, generator=generator, dtype=torch.float64) ** (1 / d)
    v = nn.functional.normalize(noise, dim=1)
    if name == "hyperbolic":
        return torch.cat([length.cosh(), length.sinh() * v], dim=1)
    a, b, c = (length * v).T
    return torch.linalg.matrix_exp(torch.stack([a, b / 2**0.5, b / 2**0.5, c], dim=1).reshape(-1, 2, 2))


def mckean(lengthscale: float) -> Callable[[Tensor], Tensor]:
    """log of the heat kernel exp(l^2 Laplacian / 2) of H^2 over its value at 0, by distance.

    Integral of s exp(-s^2 / 2 l^2) / sqrt(cosh(s) - cosh(r)) over s > r (McKean 1970), with s = r + u^2.
    """

    def integral(r: float) -> float:
        def term(u: float) -> float:
            s = r + u * u  # cosh(s) - cosh(r) = 2 sinh((s + r) / 2) sinh((s - r) / 2)
            gap = 2 * math.sinh((s + r) / 2) * math.sinh(u * u / 2)
            return 2 * u * s * math.exp(-s * s / (2 * lengthscale**2)) / math.sqrt(gap)

        return quad(term, 0, 4, epsabs=0, epsrel=1e-9, points=[1e-3, 0.5, 1.5])[0]

    r = np.linspace(1e-4, 2 * RADIUS + 0.1, 80)
    log = np.log([integral(value) for value in r]) - math.log(integral(1e-4))
    fit = np.polynomial.chebyshev.Chebyshev.fit(r, log, 12)
    return lambda distance: torch.from_numpy(fit(distance.numpy()))


def exact_log_kernel(name: str, lengthscale: float) -> Callable[[Tensor, Tensor], Tensor]:
    """log k(x_i, y_j) of the heat kernel; SPD(2) is the product of a line and of sqrt(2) H^2."""
    plane = Hyperboloid()
    if name == "hyperbolic":
        log = mckean(lengthscale)
        return lambda x, y: log(plane.cdist(x, y))
    log = mckean(lengthscale / 2**0.5)

    def split(x: Tensor) -> tuple[Tensor, Tensor]:
        root = torch.linalg.det(x).sqrt()
        a, b, d = (part / root for part in (x[:, 0, 0], x[:, 0, 1], x[:, 1, 1]))
        return 2**0.5 * root.log(), torch.stack([(a + d) / 2, (a - d) / 2, b], dim=1)

    def log_kernel(x: Tensor, y: Tensor) -> Tensor:
        (s, p), (t, q) = split(x), split(y)
        line = (s[:, None] - t).square()
        distance = manifold_of(name).dist(x[:, None], y[None])
        torch.testing.assert_close(distance, (line + 2 * plane.cdist(p, q).square()).sqrt())
        return log(plane.cdist(p, q)) - line / (2 * lengthscale**2)

    return log_kernel


@pytest.mark.parametrize(("name", "levels", "tolerance"), [("hyperbolic", 24, 3e-6), ("spd", 10, 3e-4)])
def test_the_heat_kernel_is_that_of_the_closed_form(name, levels, tolerance):
    """k itself; the score of a cloud; and its gradient, by differences of the closed form along geodesics."""
    manifold, kernel, exact = (
        manifold_of(name),
        kernel_of(name, 0.8, levels=levels),
        exact_log_kernel(name, 0.8),
    )
    x, y = points_of(name, 20, 0, 1.0), points_of(name, 30, 1)
    phi, psi = kernel.features(x), kernel.features(y)
    torch.testing.assert_close(phi @ psi.T, exact(x, y).exp(), atol=tolerance, rtol=0)
    score = spectral_score(manifold, kernel, x, y)
    torch.testing.assert_close(score.log_density, exact(x, y).logsumexp(1), atol=10 * tolerance, rtol=0)
    u, h = manifold.proju(x, points_of(name, 20, 2)), 1e-3
    u = u / manifold.norm(x, u).reshape(-1, *(1,) * manifold.point_ndim)
    ahead, behind = (exact(manifold.expmap(x, s * h * u), y).logsumexp(1) for s in (1, -1))
    along = manifold.inner(x, score.gradient, u)
    torch.testing.assert_close(along, (ahead - behind) / (2 * h), atol=30 * tolerance, rtol=30 * tolerance)
    single = spectral_score(manifold, kernel, x.float(), y.float())
    torch.testing.assert_close(single.gradient, score.gradient.float(), atol=1e-4, rtol=1e-4)


def test_isometries_keep_matern_kernels():
    """A translation of H^2, and X -> A X A^T."""
    shift, turn = (
        torch.tensor([[math.cosh(0.4), math.sinh(0.4)], [math.sinh(0.4), math.cosh(0.4)]]).double(),
        0.3,
    )
    boost = torch.block_diag(shift, torch.ones(1, 1, dtype=torch.float64))
    x, y = (points_of("hyperbolic", 10, seed, 0.8) for seed in (0, 1))
    kernel = kernel_of("hyperbolic", 0.8, 2.5, levels=30)
    moved, still = ([kernel.features(z) for z in cloud] for cloud in ((x @ boost, y @ boost), (x, y)))
    torch.testing.assert_close(moved[0] @ moved[1].T, still[0] @ still[1].T, atol=1e-5, rtol=0)
    rotation = torch.tensor([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]]).double()
    a = rotation @ torch.diag(torch.tensor([1.3, 0.9]).double())
    x, y = (points_of("spd", 10, seed, 0.6) for seed in (0, 1))
    kernel = kernel_of("spd", 1.0, 2.5, levels=9)
    moved, still = ([kernel.features(z) for z in cloud] for cloud in ((a @ x @ a.T, a @ y @ a.T), (x, y)))
    torch.testing.assert_close(moved[0] @ moved[1].T, still[0] @ still[1].T, atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", BASES)
@pytest.mark.parametrize(("scale", "direction"), [("1.2", "gradient"), ("1.2,2", "displacement")])
def test_fields_obey_the_laws(name, scale, direction):
    field = SpectralField(
        manifold_of(name),
        lambda length: kernel_of(name, length, levels=6),
        parse_lengthscales(scale),
        direction,
    )
    check_field(field, Batch(points_of(name, 6, 0), points_of(name, 9, 1)))


@pytest.mark.parametrize("name", BASES)
def test_too_few_levels_are_refused_with_those_that_would_do(name):
    with pytest.raises(
        ValueError, match=r"with levels=3 .* has values down to .*; levels=(\d+) would do"
    ) as no:
        kernel_of(name, 0.7, levels=3)
    levels = int(str(no.value).split("levels=")[-1].split()[0])
    kernel = kernel_of(name, 0.7, levels=levels)
    x = points_of(name, 200, 5)
    phi = kernel.features(x)
    assert float((phi @ phi.T).min()) > 0
    torch.testing.assert_close(phi.square().sum(1), torch.ones(200).double(), atol=0.01, rtol=0)
    with pytest.raises(ValueError, match=r"no number of levels makes .* take a longer lengthscale"):
        kernel_of(name, 0.05)


@pytest.mark.parametrize("name", BASES)
def test_points_outside_the_ball_and_bad_arguments_are_refused(name):
    kernel = kernel_of(name, 1.5)
    with pytest.raises(ValueError, match=r"points are up to 1\.\d+ from the origin, .* radius of 1\.2; give"):
        kernel.features(points_of(name, 50, 0, 2.0))
    with pytest.raises(ValueError, match="radius must be a positive"):
        BASES[name](4, radius=-1.0)
    with pytest.raises(ValueError, match="levels must be at least 1"):
        BASES[name](0)
    with pytest.raises(ValueError, match="no constant to be raised by"):
        kernel_of(name, 1.0, levels=3, raised=True)


def test_spaces_of_geometric_kernels_are_known():
    from geometric_kernels.spaces import Hyperbolic, SymmetricPositiveDefiniteMatrices

    for space, name in ((Hyperbolic(2), "hyperbolic"), (SymmetricPositiveDefiniteMatrices(2), "spd")):
        x = points_of(name, 5, 0)
        assert torch.equal(
            SpectralKernel(space, 2.0).features(x), SpectralKernel(BASES[name], 2.0).features(x)
        )
    with pytest.raises(ValueError, match="has no eigenfunctions one by one"):
        SpectralKernel(SymmetricPositiveDefiniteMatrices(3), 1.0)


@pytest.mark.parametrize("direction", ["gradient", "displacement"])
@pytest.mark.parametrize("name", BASES)
def test_each_trains(name, direction, make_net, discrepancy, tmp_path):
    """The maximum mean discrepancy of samples and data, of a Laplace kernel, falls to less than half."""
    manifold, shape = manifold_of(name), (3,) if name == "hyperbolic" else (2, 2)
    centre = points_of(name, 1, 3, 0.9).float()
    noise = 0.2 * torch.randn(64, *shape, generator=torch.Generator().manual_seed(5))
    data = manifold.expmap(centre, manifold.proju(centre, noise))
    kernel = partial(SpectralKernel, partial(BASES[name], radius=3.0))
    field = SpectralField(manifold, kernel, parse_lengthscales("2.5"), direction)
    net = make_net(manifold, shape)

    before = discrepancy(manifold, net, data)
    config = TrainConfig.of(steps=40, batch_size=32, lr=0.05, warmup_steps=1, step_size=1.0, ema_decay=0.5)
    trained = train(net, field, resample(data), config, tmp_path, accelerator=Accelerator(cpu=True))
    assert discrepancy(manifold, trained, data) < before / 2
