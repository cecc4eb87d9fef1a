"""Radial kernels, each given by log k(r) and its derivative."""

from drift_core.kernel.closed_form import Gaussian, Laplace
from drift_core.kernel.interface import RadialKernel
from drift_core.kernel.matern import Matern
from drift_core.kernel.mixture import Mixture
from drift_core.kernel.spectral import SphericalMatern

__all__ = ["Gaussian", "Laplace", "Matern", "Mixture", "RadialKernel", "SphericalMatern"]
