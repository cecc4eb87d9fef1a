"""A check that points lie on a manifold."""

from torch import Tensor

from drift_core.manifold.interface import Manifold


def check_on_manifold(manifold: Manifold, points: Tensor, what: str = "the data") -> None:
    """Raise ValueError for points that are not finite or lie off the manifold; integer tokens pass."""
    if not points.is_floating_point():
        return
    if not bool(points.isfinite().all()):
        raise ValueError(f"{what} hold NaN or infinite coordinates")
    off = float((manifold.projx(points) - points).abs().max())
    if off > 1e-3:
        raise ValueError(f"{what} lie off {manifold!r}: projecting them moves a coordinate by {off:.3g}")
