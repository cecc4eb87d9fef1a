"""Drift fields of kernels, and fields that wrap or combine others."""

from drift_core.fields.balanced import BalancedField
from drift_core.fields.composed import PullbackField, SumField, TableField
from drift_core.fields.kernel import KernelField
from drift_core.fields.nearest import NearestField
from drift_core.fields.spectral import SpectralField, spectral_score

__all__ = [
    "BalancedField",
    "KernelField",
    "NearestField",
    "PullbackField",
    "SpectralField",
    "SumField",
    "TableField",
    "spectral_score",
]
