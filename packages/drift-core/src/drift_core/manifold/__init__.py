"""Manifolds: points, tangent vectors, geodesics, and the pairs of two clouds."""

from drift_core.manifold.euclidean import Euclidean
from drift_core.manifold.generic import GeooptManifold, broadcast_pairs
from drift_core.manifold.grassmannian import Grassmannian
from drift_core.manifold.hyperboloid import Hyperboloid
from drift_core.manifold.interface import Manifold, Pairs, Similarity
from drift_core.manifold.power import Power
from drift_core.manifold.product import Product
from drift_core.manifold.rotations import SO3
from drift_core.manifold.spd import SPD
from drift_core.manifold.sphere import Sphere
from drift_core.manifold.stiefel import Stiefel
from drift_core.manifold.torus import Torus

__all__ = [
    "SO3",
    "SPD",
    "Euclidean",
    "GeooptManifold",
    "Grassmannian",
    "Hyperboloid",
    "Manifold",
    "Pairs",
    "Power",
    "Product",
    "Similarity",
    "Sphere",
    "Stiefel",
    "Torus",
    "broadcast_pairs",
]
