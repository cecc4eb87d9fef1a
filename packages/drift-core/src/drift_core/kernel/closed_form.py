"""Gaussian and Laplace: the two kernels whose logarithm is a monomial of the distance."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from drift_core.arguments import Scalar, positive
from drift_core.kernel.interface import RadialKernel


@dataclass(frozen=True)
class Gaussian(RadialKernel):
    """The Gaussian kernel, log k(r) = -r^2 / (2 l^2), with lengthscale l in units of the distance.

    Raises ValueError unless the lengthscale is positive and finite.
    """

    lengthscale: Scalar

    def __post_init__(self) -> None:
        object.__setattr__(self, "lengthscale", positive("lengthscale", self.lengthscale))

    def log(self, r: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """-r^2 / (2 l^2)."""
        return r.square() * (-0.5 / self.lengthscale**2)

    def dlog(self, r: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """-r / l^2."""
        return r * (-1 / self.lengthscale**2)


@dataclass(frozen=True)
class Laplace(RadialKernel):
    """The Laplace kernel, log k(r) = -r / l, with lengthscale l in units of the distance.

    Raises ValueError unless the lengthscale is positive and finite.
    """

    lengthscale: Scalar

    def __post_init__(self) -> None:
        object.__setattr__(self, "lengthscale", positive("lengthscale", self.lengthscale))

    def log(self, r: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """-r / l."""
        return r * (-1 / self.lengthscale)

    def dlog(self, r: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """-1 / l, at r = 0 too, where the kernel has a kink."""
        return r.new_tensor(-1 / self.lengthscale).expand_as(r)
