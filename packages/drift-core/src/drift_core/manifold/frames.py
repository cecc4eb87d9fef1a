"""Manifolds whose points are orthonormal frames."""

from drift_core.manifold.interface import Manifold


class Frames(Manifold):
    """Points are p orthonormal columns in R^n, [..., n, p], 1 <= p < n; subclasses have the metric."""

    def __init__(self, n: int, p: int) -> None:
        if not 1 <= p < n:
            raise ValueError(f"{type(self).__name__} needs 1 <= p < n, got n = {n} and p = {p}")
        self.n, self.p, self.point_shape = n, p, (n, p)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.n}, {self.p})"

    @property
    def point_ndim(self) -> int:
        """Points are matrices."""
        return 2
