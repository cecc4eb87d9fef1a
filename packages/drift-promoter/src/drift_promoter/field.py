"""The drift field of whole promoters, given the signal."""

from dataclasses import dataclass

from drift_core import DriftTerms, Manifold
from drift_core.field import DriftField
from drift_simplex import CategoricalField
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from drift_promoter.data import Windows
from drift_promoter.similarity import Similarity, whole_features


@dataclass(frozen=True)
class WholeField:
    """Drift field of whole sequences, a `ConditionalField` of places (`drift_promoter.places`).

    References count by the similarity of their signals, so that it is the field of the product kernel
    k_signal(s, s') k(x, x') with the gradient in x alone; without `similarity` all count alike.
    """

    field: CategoricalField | DriftField
    """Of tokens, or of one-hot points in R^4 at each position."""
    data: Windows
    similarity: Similarity | None

    @property
    def manifold(self) -> Manifold:
        """The geometry of the sequences."""
        return self.field.manifold

    def terms(
        self,
        x: Float[Tensor, "n L 4"],
        data: Int64[Tensor, "m 3"],
        model: Float[Tensor, "k L 4"],
        self_index: Int64[Tensor, " n"] | None,
        progress: float = 1.0,
        *,
        condition: Float[Tensor, "n L tracks"] | None = None,
        model_condition: Float[Tensor, "k L tracks"] | None = None,
    ) -> DriftTerms:
        """Attraction to the windows `data` and repulsion from the model, of like signals."""
        references, near_data = self._references(data, x, condition)
        near_model = None
        if condition is not None and model_condition is not None and self.similarity is not None:
            near_model = self.similarity.log(whole_features(condition), whole_features(model_condition))
        return self.field.terms(
            x,
            references,
            model,
            self_index,
            progress,
            data_log_weight=near_data,
            model_log_weight=near_model,
        )

    def effective_samples(
        self,
        x: Float[Tensor, "n L 4"],
        data: Int64[Tensor, "m 3"],
        progress: float = 1.0,
        *,
        condition: Float[Tensor, "n L tracks"] | None = None,
    ) -> float:
        """Mean effective number of training windows per sample."""
        references, weight = self._references(data, x, condition)
        return self.field.effective_samples(x, references, progress, data_log_weight=weight)

    def _references(self, data: Tensor, x: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Windows as the field takes them, and the log-similarity of their signals with the conditions."""
        row, shift, _ = data.cpu().unbind(1)
        tokens = self.data.tokens(row, shift).to(x.device)
        points = tokens if isinstance(self.field, CategoricalField) else F.one_hot(tokens, x.shape[2]).to(x)
        if condition is None or self.similarity is None:
            return points, None
        signals = self.data.signals(row, shift).to(condition)
        return points, self.similarity.log(whole_features(condition), whole_features(signals))
