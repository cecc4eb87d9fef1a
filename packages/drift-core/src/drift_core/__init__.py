"""Kernels, manifolds and the kernel-gradient drift field."""

import os

# Set before torch is imported: waiting OpenMP threads spin for tens of microseconds, then sleep. By default
# they spin for longer; on cores shared with other processes every small operation then waits for a time slice
# (measured: 40 times slower). Without any spinning the field takes 1.6 times as long.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")

from drift_core.drift import cap_step, drift, drift_loss, longest_step
from drift_core.field import Batch, Drift, Field
from drift_core.fields import (
    AdaptiveField,
    BalancedField,
    ConditionalField,
    Coupling,
    HeldSampleSize,
    KernelField,
    LabelledField,
    LocationField,
    MemoryBank,
    NearestField,
    NormalizedField,
    PullbackField,
    Sinkhorn,
    SpectralField,
    SumField,
    TableField,
    class_conditions,
    geometric_mean,
    mean_distance,
    rows_only,
    spectral_score,
)
from drift_core.kernel import (
    Eigenbasis,
    Gaussian,
    Laplace,
    Matern,
    Mixture,
    RadialKernel,
    SpectralKernel,
    SphericalMatern,
    rotation_basis,
)
from drift_core.manifold import (
    SO3,
    SPD,
    Euclidean,
    GeooptManifold,
    Hyperboloid,
    Manifold,
    Pairs,
    Power,
    Product,
    Similarity,
    Sphere,
    Torus,
    broadcast_pairs,
)
from drift_core.reduction import Score, merge_scores
from drift_core.runs.domain import Domain
from drift_core.score import effective_sample_size, smoothed_log_density, smoothed_score, smoothed_scores
from drift_core.training.config import TrainConfig
from drift_core.training.loop import train

__all__ = [
    "SO3",
    "SPD",
    "AdaptiveField",
    "BalancedField",
    "Batch",
    "ConditionalField",
    "Coupling",
    "Domain",
    "Drift",
    "Eigenbasis",
    "Euclidean",
    "Field",
    "Gaussian",
    "GeooptManifold",
    "HeldSampleSize",
    "Hyperboloid",
    "KernelField",
    "LabelledField",
    "Laplace",
    "LocationField",
    "Manifold",
    "Matern",
    "MemoryBank",
    "Mixture",
    "NearestField",
    "NormalizedField",
    "Pairs",
    "Power",
    "Product",
    "PullbackField",
    "RadialKernel",
    "Score",
    "Similarity",
    "Sinkhorn",
    "SpectralField",
    "SpectralKernel",
    "Sphere",
    "SphericalMatern",
    "SumField",
    "TableField",
    "Torus",
    "TrainConfig",
    "broadcast_pairs",
    "cap_step",
    "class_conditions",
    "drift",
    "drift_loss",
    "effective_sample_size",
    "geometric_mean",
    "longest_step",
    "mean_distance",
    "merge_scores",
    "rotation_basis",
    "rows_only",
    "smoothed_log_density",
    "smoothed_score",
    "smoothed_scores",
    "spectral_score",
    "train",
]
