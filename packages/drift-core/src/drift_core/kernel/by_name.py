"""Kernels by name, for command lines and configuration files."""

from functools import lru_cache

from drift_core.kernel.closed_form import Gaussian, Laplace
from drift_core.kernel.interface import RadialKernel
from drift_core.kernel.matern import Matern
from drift_core.kernel.spectral import SphericalMatern

KERNELS = ("laplace", "gaussian", "matern", "spectral")


@lru_cache(maxsize=256)
def make_kernel(name: str, lengthscale: float, nu: float = 1.5, dim: int = 2) -> RadialKernel:
    """Kernel by name: laplace, gaussian, matern (uses nu) or spectral (Matern on S^dim, uses nu).

    Raises:
        ValueError: an unknown name, or invalid parameters.
    """
    if name == "laplace":
        return Laplace(lengthscale)
    if name == "gaussian":
        return Gaussian(lengthscale)
    if name == "matern":
        return Matern(lengthscale, nu)
    if name == "spectral":
        return SphericalMatern(lengthscale, nu, dim=dim)
    raise ValueError(f"kernel must be one of {', '.join(KERNELS)}; got {name!r}")
