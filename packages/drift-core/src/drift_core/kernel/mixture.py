"""Weighted sums of kernels."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from drift_core.arguments import Scalar, number
from drift_core.kernel.interface import RadialKernel


@dataclass(frozen=True)
class Mixture(RadialKernel):
    """The kernel k = sum_i w_i k_i; the weights are used as given, so that k(0) = sum_i w_i.

    It is defined where all of its kernels are. Raises ValueError unless there is at least one kernel, one
    weight per kernel, the weights are finite and non-negative with a positive sum, and no two kernels
    belong to spheres of different dimensions.
    """

    kernels: Sequence[RadialKernel]
    weights: Iterable[Scalar]

    def __post_init__(self) -> None:
        kernels, given = tuple(self.kernels), tuple(self.weights)
        weights = tuple(number(w) for w in given)
        if not kernels:
            raise ValueError("a Mixture needs at least one kernel, got none")
        if len(weights) != len(kernels):
            raise ValueError(f"a Mixture needs one weight per kernel, got {len(weights)} for {len(kernels)}")
        if not (all(w >= 0 for w in weights) and 0 < sum(weights) < math.inf):
            raise ValueError(f"weights must be finite, >= 0 and have a positive sum, got {given}")
        spheres = sorted({f"S^{k.sphere_dim}" for k in kernels if k.sphere_dim is not None})
        if len(spheres) > 1:
            raise ValueError(f"kernels of a Mixture must share a space, got some of {' and '.join(spheres)}")
        # Tuples make the frozen dataclass hashable.
        object.__setattr__(self, "kernels", kernels)
        object.__setattr__(self, "weights", weights)

    @property
    def sphere_dim(self) -> int | None:
        """Sphere dimension of the kernels that have one."""
        return next((k.sphere_dim for k in self.kernels if k.sphere_dim is not None), None)

    def log(self, r: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Logarithm of the sum, logsumexp_i (log w_i + log k_i(r))."""
        return self._log_terms(r).logsumexp(0)

    def dlog(self, r: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Mean of the components' dlog, weighted by their share w_i k_i(r) / k(r)."""
        slopes = torch.stack([kernel.dlog(r) for kernel in self.kernels])
        return (self._log_terms(r).softmax(0) * slopes).sum(0)

    def _log_terms(self, r: Float[Tensor, "*shape"]) -> Float[Tensor, "kernels *shape"]:
        log_weights = [math.log(w) if w else -math.inf for w in self.weights]
        return torch.stack([kernel.log(r) + w for kernel, w in zip(self.kernels, log_weights, strict=True)])
