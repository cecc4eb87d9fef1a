"""Kernels, manifolds and the kernel-gradient drift field."""

from drift_core.config import TrainConfig
from drift_core.drift import DriftTerms, cap_step, drift, drift_loss, longest_step
from drift_core.kernel import Gaussian, Laplace, Matern, Mixture, RadialKernel, SphericalMatern
from drift_core.manifold import (
    Euclidean,
    GeooptManifold,
    Hyperboloid,
    Manifold,
    Pairs,
    Power,
    Sphere,
    broadcast_pairs,
)
from drift_core.reduction import Score, merge_scores
from drift_core.score import effective_sample_size, smoothed_score, smoothed_scores
from drift_core.train import train

__all__ = [
    "DriftTerms",
    "Euclidean",
    "Gaussian",
    "GeooptManifold",
    "Hyperboloid",
    "Laplace",
    "Manifold",
    "Matern",
    "Mixture",
    "Pairs",
    "Power",
    "RadialKernel",
    "Score",
    "Sphere",
    "SphericalMatern",
    "TrainConfig",
    "broadcast_pairs",
    "cap_step",
    "drift",
    "drift_loss",
    "effective_sample_size",
    "longest_step",
    "merge_scores",
    "smoothed_score",
    "smoothed_scores",
    "train",
]
