"""The drift field of whole sequences, given the signal."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from drift_core import Batch, Drift, KernelField, Manifold
from drift_core.field import diagnostics
from drift_simplex import CategoricalField
from torch.nn import functional as F

from drift_promoter.data import Windows
from drift_promoter.similarity import Similarity, whole_features


@dataclass(frozen=True)
class SequenceField:
    """Drift field of whole sequences; its data are crop indices as long as the windows (`crop_indices`).

    References count by the similarity of their signals, so that it is the field of the product kernel
    k_signal(s, s') k(x, x') with the gradient in x alone; without `similarity` all count alike.
    """

    field: CategoricalField | KernelField
    """Of tokens, or of one-hot points in R^4 at each position."""
    data: Windows
    similarity: Similarity | None

    data_device: ClassVar[torch.device] = torch.device("cpu")
    """Windows are mapped into memory, and read there."""

    @property
    def manifold(self) -> Manifold:
        """The geometry of the sequences."""
        return self.field.manifold

    def __call__(self, batch: Batch) -> Drift:
        """Attraction to the windows at the indices, and repulsion from the model, given the signals."""
        near_model = None
        if batch.condition is not None and self.similarity is not None:
            c, there = batch.condition, batch.model_condition
            there = c if batch.model is None or there is None else there
            near_model = self.similarity.log(whole_features(c), whole_features(there))
        return self.field(replace(self._of_windows(batch), model_log_weight=near_model))

    def diagnostics(self, batch: Batch) -> dict[str, float]:
        """Those of the inner field, of windows weighed by their signals."""
        return diagnostics(self.field, self._of_windows(batch))

    def _of_windows(self, batch: Batch) -> Batch:
        """The batch with windows as the inner field takes them, weighed by how like their signals are."""
        row, shift, _ = batch.data.cpu().unbind(1)  # where training leaves them
        x, condition, near = batch.x, batch.condition, None
        tokens = self.data.tokens(row, shift).to(x.device)
        points = tokens if isinstance(self.field, CategoricalField) else F.one_hot(tokens, x.shape[2]).to(x)
        if condition is not None and self.similarity is not None:
            signals = self.data.signals(row, shift).to(condition)
            near = self.similarity.log(whole_features(condition), whole_features(signals))
        return replace(batch, data=points, data_log_weight=near)
