"""Manifolds: points, tangent vectors, geodesics, and the pairs of two clouds."""

from drift_core.manifold.euclidean import Euclidean
from drift_core.manifold.generic import GeooptManifold, broadcast_pairs
from drift_core.manifold.hyperboloid import Hyperboloid
from drift_core.manifold.interface import Manifold, Pairs
from drift_core.manifold.power import Power
from drift_core.manifold.sphere import Sphere

__all__ = [
    "Euclidean",
    "GeooptManifold",
    "Hyperboloid",
    "Manifold",
    "Pairs",
    "Power",
    "Sphere",
    "broadcast_pairs",
]
