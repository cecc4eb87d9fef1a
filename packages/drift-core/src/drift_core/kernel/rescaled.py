"""A kernel of distances in other units."""

from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from drift_core.kernel.closed_form import Gaussian, Laplace
from drift_core.kernel.interface import RadialKernel
from drift_core.kernel.matern import Matern


@dataclass(frozen=True)
class Rescaled(RadialKernel):
    """The kernel k(scale * r); `rescaled` makes it."""

    kernel: RadialKernel
    scale: float

    def log(self, r: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """log k(scale * r)."""
        return self.kernel.log(self.scale * r)

    def dlog(self, r: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Derivative of log k(scale * r) in r."""
        return self.scale * self.kernel.dlog(self.scale * r)


def rescaled(kernel: RadialKernel, scale: float) -> RadialKernel:
    """The kernel k(scale * r): another lengthscale, where the kernel has one."""
    if scale == 1:
        return kernel
    if isinstance(kernel, Gaussian | Laplace | Matern):
        return replace(kernel, lengthscale=kernel.lengthscale / scale)
    return Rescaled(kernel, scale)
