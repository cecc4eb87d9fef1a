"""Drift fields of kernels, and fields that wrap or combine others."""

from drift_core.fields.balanced import BalancedField
from drift_core.fields.composed import LocationField, PullbackField, SumField, TableField
from drift_core.fields.conditional import ConditionalField, class_conditions
from drift_core.fields.coupling import Coupling, Sinkhorn, geometric_mean, rows_only
from drift_core.fields.kernel import KernelField
from drift_core.fields.labelled import LabelledField, MemoryBank
from drift_core.fields.nearest import NearestField
from drift_core.fields.scaled import AdaptiveField, HeldSampleSize, NormalizedField, mean_distance
from drift_core.fields.spectral import SpectralField, spectral_score

__all__ = [
    "AdaptiveField",
    "BalancedField",
    "ConditionalField",
    "Coupling",
    "HeldSampleSize",
    "KernelField",
    "LabelledField",
    "LocationField",
    "MemoryBank",
    "NearestField",
    "NormalizedField",
    "PullbackField",
    "Sinkhorn",
    "SpectralField",
    "SumField",
    "TableField",
    "class_conditions",
    "geometric_mean",
    "mean_distance",
    "rows_only",
    "spectral_score",
]
