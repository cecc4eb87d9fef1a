"""Drift fields of kernels, and fields that wrap or combine others."""

from drift_core.fields.balanced import BalancedField
from drift_core.fields.composed import PullbackField, SumField, TableField
from drift_core.fields.kernel import KernelField
from drift_core.fields.nearest import NearestField

__all__ = ["BalancedField", "KernelField", "NearestField", "PullbackField", "SumField", "TableField"]
