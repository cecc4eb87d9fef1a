"""The drift field of sequences: data are integer tokens, samples are soft points."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from drift_core import Batch, Drift, Manifold, RadialKernel, smoothed_scores
from drift_core.fields.kernel import sum_scales
from drift_core.lengthscale import Lengthscales
from jaxtyping import Float, Integer, Shaped
from torch import Tensor

from drift_simplex.geometry import FisherRao
from drift_simplex.kmers import kmer_effective_sample_size, kmer_scores
from drift_simplex.onehot import onehot_effective_sample_size, onehot_log_kernel, onehot_scores
from drift_simplex.product import product_scores


@dataclass(frozen=True)
class CategoricalField:
    """Drift field between one-hot data and soft samples, a `drift_core.Field`.

    It equals `drift_core.KernelField` on `FisherRao()`, for one or several annealed lengthscales. The data
    stay tokens [m, L], so that a whole training set fits in a step.

    A conditional field multiplies the kernel by a kernel of the conditions, k_c(c, c') k(x, x'): pass
    log k_c(c_i, c'_j) as the batch's `data_log_weight` and `model_log_weight`. The gradient is in x only.
    """

    vocab_size: int
    """Size K of the vocabulary; tokens lie in 0..K-1."""
    kernel: Callable[[float], RadialKernel]
    """Maps a lengthscale to a kernel of the total distance, or of the angle at one position if `product`."""
    lengthscales: Lengthscales
    direction: str = "gradient"
    product: bool = False
    """Multiply one kernel per position, instead of taking the kernel of the total distance."""
    chunk_size: int | None = None

    @property
    def manifold(self) -> Manifold:
        """The geometry of the samples."""
        return FisherRao()

    def __call__(self, batch: Batch) -> Drift:
        """Attraction to the tokens `batch.data`, and repulsion from the soft samples."""
        model, own = batch.negatives()
        return Drift(
            self.attraction_to_tokens(batch.x, batch.data, batch.progress, log_weight=batch.data_log_weight),
            self.attraction_to_points(
                batch.x, model, batch.progress, log_weight=batch.model_log_weight, self_index=own
            ),
        )

    def diagnostics(self, batch: Batch) -> dict[str, float]:
        """Mean effective number of data points per sample (ess), at the smallest lengthscale."""
        kernel = self.kernel(min(self.lengthscales.at(batch.progress)))
        sizes = onehot_effective_sample_size(
            kernel, batch.x, batch.data, log_weight=batch.data_log_weight, product=self.product
        )
        return {"ess": float(sizes.mean())}

    def attraction_to_tokens(
        self,
        x: Float[Tensor, "n L K"],
        tokens: Integer[Tensor, "m L"],
        progress: float = 1.0,
        *,
        log_weight: Float[Tensor, "..."] | None = None,
    ) -> Float[Tensor, "n L K"]:
        """Attraction score of tokens; `log_weight` broadcasts to [n, m], -inf excludes a pair."""
        scales = self.lengthscales.at(progress)
        scores = onehot_scores(
            [self.kernel(scale) for scale in scales],
            x,
            tokens,
            log_weight=log_weight,
            direction=self.direction,
            chunk_size=self.chunk_size,
            product=self.product,
        )
        return sum_scales(scales, scores, self.direction)

    def attraction_to_points(
        self,
        x: Float[Tensor, "n L K"],
        points: Float[Tensor, "m L K"],
        progress: float = 1.0,
        *,
        log_weight: Float[Tensor, "..."] | None = None,
        self_index: Integer[Tensor, " n"] | None = None,
    ) -> Float[Tensor, "n L K"]:
        """Attraction score of soft points; for generated samples it is the repulsion.

        `log_weight` broadcasts to [n, m], and -inf excludes a pair. `self_index` is the row of each x in
        `points`, which is excluded, too.
        """
        scales = self.lengthscales.at(progress)
        soft_scores = product_scores if self.product else partial(smoothed_scores, self.manifold)
        scores = soft_scores(
            [self.kernel(scale) for scale in scales],
            x,
            points,
            log_weight=log_weight,
            direction=self.direction,
            chunk_size=self.chunk_size,
            self_index=self_index,
        )
        return sum_scales(scales, scores, self.direction)

    def attraction_to_kmers(
        self,
        x: Float[Tensor, "n w K"],
        counts: Shaped[Tensor, " kmers"],
        progress: float = 1.0,
        *,
        own: Integer[Tensor, "n r w"] | None = None,
    ) -> Float[Tensor, "n w K"]:
        """Attraction score of all k-mers of the samples' length, weighted by their counts (`kmer_scores`).

        `own` are the counted k-mers of each sample itself, which do not attract it. Raises ValueError unless
        the kernel is a product kernel.
        """
        self._check_product()
        scales = self.lengthscales.at(progress)
        kernels = [self.kernel(scale) for scale in scales]
        scores = kmer_scores(kernels, x, counts, own=own, direction=self.direction)
        return sum_scales(scales, scores, self.direction)

    def log_kernel(
        self, x: Float[Tensor, "n L K"], data: Integer[Tensor, "m L"], progress: float = 1.0
    ) -> Float[Tensor, "n m"]:
        """log k(x_i, y_j) at the smallest lengthscale."""
        kernel = self.kernel(min(self.lengthscales.at(progress)))
        return onehot_log_kernel(kernel, x, data, product=self.product)

    def effective_kmers(
        self, x: Float[Tensor, "n w K"], counts: Shaped[Tensor, " kmers"], progress: float = 1.0
    ) -> float:
        """Mean effective number of counted k-mers per sample, at the smallest lengthscale."""
        self._check_product()
        kernel = self.kernel(min(self.lengthscales.at(progress)))
        return float(kmer_effective_sample_size(kernel, x, counts).mean())

    def _check_product(self) -> None:
        if not self.product:
            raise ValueError("k-mer counts are for product kernels: CategoricalField(..., product=True)")
