"""Every manifold, kernel and field of the package obeys the law suites that the package ships."""

from typing import final

import pytest
import torch
from drift_core import (
    Euclidean,
    Gaussian,
    Laplace,
    Manifold,
    Matern,
    Mixture,
    Pairs,
    RadialKernel,
    Sphere,
    SphericalMatern,
    broadcast_pairs,
)
from drift_core.testing import check_drift, check_kernel, check_manifold
from torch import Tensor

KERNELS = {
    "gaussian": Gaussian(0.7),
    "laplace": Laplace(0.7),
    "matern-3/2": Matern(0.7, 1.5),
    "matern-7/2": Matern(0.7, 3.5),
    "matern-0.8": Matern(0.7, 0.8),
    "mixture": Mixture((Laplace(0.4), Gaussian(1.3)), (0.3, 2.0)),
}
SPECTRAL = {"heat": SphericalMatern(0.7, float("inf")), "spectral-5/2": SphericalMatern(0.7, 2.5)}


def test_manifolds(manifold, cloud):
    check_manifold(manifold, cloud(12, 0), cloud(12, 1))


@pytest.mark.parametrize("name", [*KERNELS, *SPECTRAL])
def test_kernels(name):
    check_kernel({**KERNELS, **SPECTRAL}[name], torch.linspace(0.01, 3.1, 300, dtype=torch.float64))


@pytest.mark.parametrize("name", KERNELS)
def test_drift(manifold, cloud, name):
    check_drift(manifold, KERNELS[name], cloud(5, 0), cloud(11, 1))


@pytest.mark.parametrize("name", SPECTRAL)
def test_drift_of_spectral_kernels(sphere_cloud, name):
    check_drift(Sphere(), SPECTRAL[name], sphere_cloud(5, 0), sphere_cloud(11, 1))


@final
class Torus(Manifold):
    """Flat torus R^d / (2 pi Z)^d: what a user writes for a new geometry."""

    injectivity_radius = torch.pi

    @property
    def point_ndim(self) -> int:
        return 1

    def projx(self, x: Tensor) -> Tensor:
        return torch.remainder(x, 2 * torch.pi)

    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        return u

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return (u * v).sum(-1)

    def dist(self, x: Tensor, y: Tensor) -> Tensor:
        return self.logmap(x, y).norm(dim=-1)

    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        return self.projx(x + u)

    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.remainder(y - x + torch.pi, 2 * torch.pi) - torch.pi

    def pairs(self, x: Tensor, y: Tensor) -> Pairs:
        return broadcast_pairs(self, x, y)


def test_a_new_manifold_is_one_small_class():
    generator = torch.Generator().manual_seed(0)
    x, y = (2 * torch.pi * torch.rand(2, 12, 2, generator=generator, dtype=torch.float64)).unbind()
    check_manifold(Torus(), x, y)
    check_drift(Torus(), Matern(0.5, 2.5), x, y)


class _Wrong(RadialKernel):
    def log(self, r: Tensor) -> Tensor:
        return -r * r

    def dlog(self, r: Tensor) -> Tensor:
        return -r  # the factor 2 is missing


def test_suites_catch_wrong_code():
    with pytest.raises(AssertionError, match="dlog is the derivative of log"):
        check_kernel(_Wrong(), torch.linspace(0.1, 2, 20, dtype=torch.float64))
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 8, 3, generator=generator, dtype=torch.float64).unbind()
    with pytest.raises(AssertionError, match="gradient is that of the log-density"):
        check_drift(Euclidean(), _Wrong(), x, y)
    with pytest.raises(AssertionError, match="projx"):
        check_manifold(Sphere(), x, y)
