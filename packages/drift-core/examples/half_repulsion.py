"""A new field in a few lines, which `drift_core.testing.check_field` refuses: half the repulsion."""

from dataclasses import dataclass

from drift_core import Batch, Drift, Field


@dataclass(frozen=True)
class HalfRepulsion:
    """A field whose repulsion is halved: it does not vanish where data and model agree."""

    field: Field

    @property
    def manifold(self):
        """The geometry of the samples."""
        return self.field.manifold

    def __call__(self, batch: Batch) -> Drift:
        """Attraction, and half the repulsion."""
        attraction, repulsion = self.field(batch)
        return Drift(attraction, repulsion / 2)
