"""Heat and Matern kernels from eigenfunctions, on any space that has them."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from drift_core.arguments import positive
from drift_core.kernel.eigenbasis import Eigenbasis
from drift_core.kernel.spaces import space_basis

_MARGIN = 1e-6
"""Least value of a raised kernel, relative to its mean over the space."""
_FADED = 1e-3
"""Weight of the last eigenfunction over that of the first, below which a series may end."""
_MOST_FEATURES = 8192
"""Features up to which a number of levels is looked for."""


class SpectralKernel:
    """The Matern or heat kernel k(x, y) = Phi(x) . Phi(y) of a space whose eigenfunctions are known.

    With eigenvalues lambda_i and orthonormal eigenfunctions f_i, Phi_i = sqrt(a_i / sum a) f_i, where
    a_i = (2 nu / l^2 + lambda_i)^-(nu + dim / 2), and for nu = inf, the heat kernel, exp(-l^2 lambda_i / 2)
    (Borovitskiy et al. 2020, Matern Gaussian processes on Riemannian manifolds). On a homogeneous space
    k(x, x) is 1.

    It is no function of the distance in general. `spectral_score` and `SpectralField` use it, at a cost
    linear in queries plus references. The series is cut after some levels, and its logarithm is wanted: the
    kernel must be positive at all pairs of the probes of its basis, by more than the error of a quadrature.
    Values far below float64's rounding of k(x, x) are not, so that short lengthscales are refused; radial
    kernels have no such limit. A kernel that is `raised` by a constant instead remains positive definite. Far
    from all references, where the constant is most of the density, its field vanishes.

    Args:
        space: a space of geometric-kernels whose eigenfunctions are explicit, or a function of the number of
            levels that returns an `Eigenbasis`, as `rotation_basis`, `hyperbolic_basis` and `spd_basis` do.
        lengthscale: l, in units of distance on the space.
        nu: smoothness; inf is the heat kernel.
        levels: levels of eigenfunctions; None: as few as make the kernel positive, and as have the last a_i
                below 1e-3 of the first.
        raised: add the constant that makes the kernel positive, where it is not, by a larger weight of the
                first eigenfunction, which must be 1 or -1; not for continuous spectra.

    Raises:
        ValueError: parameters that are not positive, or a kernel that is not, with the levels that would do.
    """

    def __init__(
        self,
        space: Any,
        lengthscale: float,
        nu: float = math.inf,
        *,
        levels: int | None = None,
        raised: bool = False,
    ) -> None:
        self.lengthscale, self.nu = positive("lengthscale", lengthscale), positive("nu", nu, or_inf=True)
        if levels is not None and levels < 1:
            raise ValueError(f"levels must be at least 1, got {levels}")
        make = space if callable(space) else partial(space_basis, space)
        self.raised = raised
        self.levels = self._smallest(make, 2) if levels is None else levels
        self.basis: Eigenbasis = make(self.levels)
        self._weight = self._weights(self.basis)
        lowest = self._lowest(self.basis)
        if raised and self.basis.measure is not None:
            raise ValueError("a kernel of a continuous spectrum has no constant to be raised by")
        if raised:
            self._weight[0] += max(0.0, _MARGIN * float(self._weight[0]) - lowest)
        elif not lowest > 0:
            enough = self._smallest(make, self.levels + 1)
            raise ValueError(
                f"with levels={self.levels} the kernel of lengthscale {self.lengthscale:g} has values down "
                f"to {lowest:.2g}, where k(x, x) is about 1; levels={enough} would do"
            )

    def __repr__(self) -> str:
        return f"SpectralKernel({self.lengthscale:g}, nu={self.nu:g}, levels={self.levels})"

    def features(self, x: Tensor) -> Float64[Tensor, "n D"]:
        """Phi at points [n, *point], [n, D]; differentiable where the eigenfunctions are."""
        points = x.double() if x.is_floating_point() else x
        return self.basis.functions(points).double() * self._weight.sqrt().to(x.device)

    def _density(self, basis: Eigenbasis) -> Tensor:
        """a_i of the eigenvalues."""
        if math.isinf(self.nu):
            return torch.exp(-(self.lengthscale**2) * basis.eigenvalues / 2)
        scaled = 1 + self.lengthscale**2 * basis.eigenvalues / (2 * self.nu)
        return scaled ** -(self.nu + basis.dim / 2)

    def _weights(self, basis: Eigenbasis) -> Tensor:
        """a_i times the measure of each function, of sum 1."""
        weight = self._density(basis)
        if basis.measure is not None:
            weight = weight * basis.measure
        return weight / weight.sum()

    @torch.no_grad()
    def _lowest(self, basis: Eigenbasis) -> float:
        """Lowest value of the kernel at pairs of probes, less the error of a quadrature.

        That is seen in k(x, x), which is 1 on a homogeneous space.
        """
        kernel = (basis.at_probes * self._weights(basis)) @ basis.at_probes.T
        error = 0.0 if basis.measure is None else float((kernel.diagonal() - 1).abs().max())
        return float(kernel.min()) - error

    def _smallest(self, make: Callable[[int], Eigenbasis], first: int) -> int:
        """Least number of levels, in steps of a sixth, that make the kernel positive and suffice."""
        levels, lowest = first, math.nan
        while True:
            try:
                basis = make(levels)
            except (AssertionError, IndexError, NotImplementedError, KeyError):
                break  # the space has no more
            if len(basis.eigenvalues) > _MOST_FEATURES:
                break
            density, lowest = self._density(basis), self._lowest(basis)
            if (lowest > 0 or self.raised) and float(density.min() / density.max()) < _FADED:
                return levels
            levels += 1 + levels // 6
        raise ValueError(
            f"no number of levels makes the kernel of lengthscale {self.lengthscale:g} positive, and its "
            f"series fade ({levels}: down to {lowest:.2g}); take a longer lengthscale, or a radial kernel"
        )
