"""Radial kernels, each given by log k(r) and its derivative, and kernels given by eigenfunctions."""

from drift_core.kernel.closed_form import Gaussian, Laplace
from drift_core.kernel.eigenbasis import Eigenbasis, rotation_basis
from drift_core.kernel.eigenfunctions import SpectralKernel
from drift_core.kernel.interface import RadialKernel
from drift_core.kernel.matern import Matern
from drift_core.kernel.mixture import Mixture
from drift_core.kernel.spectral import SphericalMatern
from drift_core.kernel.waves import hyperbolic_basis, spd_basis

__all__ = [
    "Eigenbasis",
    "Gaussian",
    "Laplace",
    "Matern",
    "Mixture",
    "RadialKernel",
    "SpectralKernel",
    "SphericalMatern",
    "hyperbolic_basis",
    "rotation_basis",
    "spd_basis",
]
