"""The interface of radial kernels: two scalar functions of the distance."""

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor


class RadialKernel(ABC):
    """A kernel k(x, y) = k(d(x, y)) that depends only on the distance, given by its logarithm.

    Subclasses implement `log` and `dlog`, elementwise and in the dtype of their argument, for
    every r >= 0. The drift field needs nothing else. A kernel that is defined on spheres of one dimension
    only overrides `sphere_dim`.
    """

    @property
    def sphere_dim(self) -> int | None:
        """Dimension n if the kernel is defined only on the unit sphere S^n; None if on every manifold."""
        return None

    @abstractmethod
    def log(self, r: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Logarithm of the kernel, log k(r), at distances r >= 0; log k(0) = 0 by convention."""

    @abstractmethod
    def dlog(self, r: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Derivative d/dr log k(r) at distances r >= 0 (the right-hand limit at r = 0)."""
