"""The drift field of a training run: a geometry, a family of kernels, and lengthscales that may change."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from drift_core.drift import DriftTerms
from drift_core.kernel import Gaussian, Laplace, Matern, RadialKernel, SphericalMatern
from drift_core.lengthscale import Lengthscales
from drift_core.manifold import Manifold
from drift_core.reduction import Score
from drift_core.score import effective_sample_size, smoothed_scores

KERNELS = ("laplace", "gaussian", "matern", "spectral")


@lru_cache(maxsize=256)
def make_kernel(name: str, lengthscale: float, nu: float = 1.5, dim: int = 2) -> RadialKernel:
    """Kernel by its name: laplace, gaussian, matern (uses nu) or spectral (Matern on S^dim, uses nu).

    Raises:
        ValueError: an unknown name, or parameters that the kernel refuses.
    """
    if name == "laplace":
        return Laplace(lengthscale)
    if name == "gaussian":
        return Gaussian(lengthscale)
    if name == "matern":
        return Matern(lengthscale, nu)
    if name == "spectral":
        return SphericalMatern(lengthscale, nu, dim=dim)
    raise ValueError(f"kernel must be one of {', '.join(KERNELS)}; got {name!r}")


def sum_scales(scales: Sequence[float], scores: Sequence[Score], direction: str) -> Tensor:
    """One field from the scores at several lengthscales l, each made dimensionless first.

    The kernel gradient is multiplied by l, the displacement divided by it; a single scale is left alone.
    """
    if len(scales) == 1:
        return scores[0].gradient
    units = scales if direction == "gradient" else [1 / scale for scale in scales]
    parts = [unit * score.gradient for unit, score in zip(units, scores, strict=True)]
    return torch.stack(parts).sum(0)


@dataclass(frozen=True)
class DriftField:
    """Drift field at one or several lengthscales, as a function of the progress of training.

    With one lengthscale l the field is `drift`. With several, each field is made dimensionless (the
    kernel gradient times l, the displacement over l) and they are summed, so that each scale has its say.
    """

    manifold: Manifold
    kernel: Callable[[float], RadialKernel]
    """Maps a lengthscale to a kernel."""
    lengthscales: Lengthscales
    direction: str = "gradient"
    chunk_size: int | None = None

    def terms(
        self,
        x: Float[Tensor, "n ..."],
        data: Float[Tensor, "m ..."],
        model: Float[Tensor, "k ..."],
        self_index: Int[Tensor, " n"] | None,
        progress: float = 1.0,
        *,
        data_log_weight: Float[Tensor, "..."] | None = None,
        model_log_weight: Float[Tensor, "..."] | None = None,
    ) -> DriftTerms:
        """Attraction and repulsion at x when the fraction `progress` of training is over.

        Log-weights broadcast to [n, m] and [n, k]; -inf excludes a pair.
        """
        scales = self.lengthscales.at(progress)
        kernels = [self.kernel(scale) for scale in scales]
        towards = partial(
            smoothed_scores,
            self.manifold,
            kernels,
            x,
            direction=self.direction,
            chunk_size=self.chunk_size,
        )
        return DriftTerms(
            sum_scales(scales, towards(data, log_weight=data_log_weight), self.direction),
            sum_scales(
                scales, towards(model, log_weight=model_log_weight, self_index=self_index), self.direction
            ),
        )

    def log_kernel(
        self, x: Float[Tensor, "n ..."], data: Float[Tensor, "m ..."], progress: float = 1.0
    ) -> Float[Tensor, "n m"]:
        """log k(x_i, y_j) at the smallest lengthscale."""
        return self.kernel(min(self.lengthscales.at(progress))).log(self.manifold.cdist(x, data))

    def effective_samples(
        self,
        x: Float[Tensor, "n ..."],
        data: Float[Tensor, "m ..."],
        progress: float = 1.0,
        *,
        data_log_weight: Float[Tensor, "..."] | None = None,
    ) -> float:
        """Mean effective number of data points per query, at the smallest lengthscale."""
        kernel = self.kernel(min(self.lengthscales.at(progress)))
        sizes = effective_sample_size(self.manifold, kernel, x, data, log_weight=data_log_weight)
        return float(sizes.mean())
