"""The field of the paper: a kernel on a manifold, at one or several lengthscales."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from drift_core.field import Batch, Drift
from drift_core.fields.coupling import Coupling, coupled_log_weight, rows_only
from drift_core.kernel import RadialKernel
from drift_core.lengthscale import Lengthscales
from drift_core.manifold import Manifold
from drift_core.reduction import Score, check_kernels
from drift_core.score import effective_sample_size, smoothed_scores


def sum_scales(scales: Sequence[float], scores: Sequence[Score], direction: str) -> Tensor:
    """Sum of the scores at several lengthscales l, each made dimensionless.

    Kernel gradients are multiplied by l, displacements divided by l. A single score is returned unscaled.
    """
    if len(scales) == 1:
        return scores[0].gradient
    units = scales if direction == "gradient" else [1 / scale for scale in scales]
    parts = [unit * score.gradient for unit, score in zip(units, scores, strict=True)]
    return torch.stack(parts).sum(0)


@dataclass(frozen=True)
class KernelField:
    """Drift field V = grad log p_k - grad log q_k of a kernel, at one or several lengthscales.

    With one lengthscale it is the field of `drift`. With several, the fields are made dimensionless (the
    kernel gradient times l, the displacement over l) and summed.
    """

    manifold: Manifold
    kernel: Callable[[float], RadialKernel]
    """Maps a lengthscale to a kernel, as the class `Laplace` does."""
    lengthscales: Lengthscales
    """`Lengthscales((0.2,))` for one that is constant, `parse_lengthscales("3:0.2")` for one that anneals."""
    direction: str = "gradient"
    """Along the kernel gradient, or along the mean displacement ("displacement")."""
    chunk_size: int | None = None
    """References evaluated at once; any value gives the same field."""
    coupling: Coupling = rows_only
    """How samples and references are paired: `rows_only`, `geometric_mean` or `Sinkhorn(iterations)`."""

    def __call__(self, batch: Batch) -> Drift:
        """Attraction to the data and repulsion from the model at the progress of the batch."""
        scales = self.lengthscales.at(batch.progress)
        kernels = [self.kernel(scale) for scale in scales]
        parts = (self._scores(kernels, batch, own) for own in (False, True))
        return Drift(*(sum_scales(scales, scores, self.direction) for scores in parts))

    def separable(self, batch: Batch) -> bool:
        """Whether it has the drift of each of several problems in one batch; see `Field`.

        Under a coupling all samples must be there, and no reference may belong to several problems.
        """
        unshared = batch.model is None or batch.num_generated in (None, len(batch.model))
        return self.coupling is rows_only or (batch.complete and unshared)

    def _scores(self, kernels: Sequence[RadialKernel], batch: Batch, own: bool) -> list[Score]:
        """Scores of the samples that repel (`own`), or of the data, for each kernel."""
        references, index, weight = batch.data, None, batch.data_log_weight
        if own:
            (references, index), weight = batch.negatives(), batch.model_log_weight
        # Without a coupling the kernels have the same weights, and share the distances.
        groups = [kernels] if self.coupling is rows_only else [[kernel] for kernel in kernels]
        return [
            score
            for group in groups
            for score in smoothed_scores(
                self.manifold,
                group,
                batch.x,
                references,
                log_weight=self._coupled(group[0], batch, references, weight, own),
                direction=self.direction,
                chunk_size=self.chunk_size,
                self_index=index,
            )
        ]

    def _coupled(
        self, kernel: RadialKernel, batch: Batch, references: Tensor, weight: Tensor | None, own: bool
    ) -> Tensor | None:
        """Log-weights of references with those of the coupling."""
        if self.coupling is rows_only:
            return weight
        return coupled_log_weight(self.coupling, self.manifold, kernel, batch, references, weight, own=own)

    def diagnostics(self, batch: Batch) -> dict[str, float]:
        """Mean effective number of data points per sample (ess), at the smallest lengthscale."""
        kernel = self.kernel(min(self.lengthscales.at(batch.progress)))
        sizes = effective_sample_size(
            self.manifold, kernel, batch.x, batch.data, log_weight=batch.data_log_weight
        )
        return {"ess": float(sizes.mean())}

    def log_kernel(
        self, x: Float[Tensor, "n ..."], data: Float[Tensor, "m ..."], progress: float = 1.0
    ) -> Float[Tensor, "n m"]:
        """log k(x_i, y_j) at the smallest lengthscale."""
        kernel = self.kernel(min(self.lengthscales.at(progress)))
        check_kernels(self.manifold, (kernel,), x)
        return kernel.log(self.manifold.cdist(x, data))
