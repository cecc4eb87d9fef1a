"""Fields made of fields: their sum, and the field of the images under a map."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from drift_core.field import Batch, Drift, Field, diagnostics, observe
from drift_core.manifold import Manifold


@dataclass(frozen=True)
class SumField:
    """Weighted sum of drift fields on one manifold, sum_s w_s V_s.

    With one number a field it is, of kernel-gradient fields, the gradient of sum_s w_s log p_s/q_s: it
    vanishes where all the smoothed densities agree. A weight may also be a tensor that broadcasts to the
    points, such as one number a position [L, 1] for points [L, d] of `Power`; scaled so, tangent vectors must
    stay tangent.

    Raises ValueError for no field, a field without a weight, weights that are not positive, or several
    manifolds.
    """

    fields: Sequence[Field]
    weights: Sequence[float | Tensor]

    def __post_init__(self) -> None:
        if not self.fields or len(self.fields) != len(self.weights):
            raise ValueError(f"expected as many weights as fields, got {self.weights} for {self.fields}")
        if not all(bool((torch.as_tensor(weight) > 0).all()) for weight in self.weights):
            raise ValueError(f"the weights of fields must be positive, got {self.weights}")
        manifolds = {repr(field.manifold) for field in self.fields}
        if len(manifolds) > 1:
            raise ValueError(f"fields on different manifolds have no sum, got {', '.join(sorted(manifolds))}")

    @property
    def manifold(self) -> Manifold:
        """The geometry of all the fields."""
        return self.fields[0].manifold

    def __call__(self, batch: Batch) -> Drift:
        """Sums of attractions and of repulsions."""
        sums = [torch.zeros_like(batch.x) for _ in Drift._fields]
        for field, weight in zip(self.fields, self.weights, strict=True):
            scale = torch.as_tensor(weight, dtype=batch.x.dtype, device=batch.x.device)
            for total, part in zip(sums, field(batch), strict=True):
                total.addcmul_(scale, part)
        return Drift(*sums)

    def observe(self, batch: Batch) -> None:
        """Every field observes the batch."""
        for field in self.fields:
            observe(field, batch)

    def diagnostics(self, batch: Batch) -> dict[str, float]:
        """Those of the fields, averaged by name with the (mean) weights of the fields that have them."""
        found: dict[str, list[tuple[float, float]]] = {}
        for field, weight in zip(self.fields, self.weights, strict=True):
            share = float(torch.as_tensor(weight, dtype=torch.float64).mean())
            for name, value in diagnostics(field, batch).items():
                found.setdefault(name, []).append((share, value))
        return {name: _weighted_mean(terms) for name, terms in found.items()}


@dataclass(frozen=True)
class PullbackField:
    """Drift field of the kernel k(map(x), map(y)): samples move so that their images follow another field.

    The attraction at x is J^T s, with s the attraction of the inner field at map(x) and J^T the adjoint of
    the derivative of the map, by automatic differentiation; so is the repulsion. Where the inner field is a
    difference of scores, this one is, too: that of the images under the map. It is zero where the images of
    data and model have one distribution, whatever the rest: a map that forgets says nothing about what it
    forgets (`SumField` adds others).
    """

    map: Callable[[Tensor], Tensor]
    """Maps points [n, *point] of `manifold` to points [n, *image] of the inner field's, differentiably."""
    field: Field
    """The inner field."""
    manifold: Manifold
    """The geometry of the samples."""
    map_data: Callable[[Tensor], Tensor] | None = None
    """Maps data to what the inner field takes; None: `map`."""

    def __call__(self, batch: Batch) -> Drift:
        """The inner field at the images, pulled back."""
        with torch.enable_grad():
            x = batch.x.detach().requires_grad_()
            images = self.map(x)
        inner = self.field(self._image_of(batch, images.detach()))
        return Drift(*(self._pull(x, images, vector) for vector in inner))

    def observe(self, batch: Batch) -> None:
        """The inner field observes the images."""
        observe(self.field, self._image_of(batch, self._mapped(batch.x)))

    def diagnostics(self, batch: Batch) -> dict[str, float]:
        """Those of the inner field."""
        return diagnostics(self.field, self._image_of(batch, self._mapped(batch.x)))

    def _pull(self, x: Tensor, images: Tensor, vector: Tensor) -> Tensor:
        """Adjoint of the derivative of the map, applied to tangent vectors at the images."""
        if not images.requires_grad:  # a map that does not depend on x
            return torch.zeros_like(x.detach())
        with torch.enable_grad():
            along = self.field.manifold.inner(images.detach(), vector, images).sum()
        (covector,) = torch.autograd.grad(along, x, retain_graph=True)
        return self.manifold.egrad2rgrad(x.detach(), covector)

    def _image_of(self, batch: Batch, images: Tensor) -> Batch:
        model, own = batch.negatives()
        repelling = images if batch.model is None else self._mapped(model)
        with torch.no_grad():
            data = (self.map_data or self.map)(batch.data)
        return replace(batch, x=images, data=data, model=repelling, self_index=own)

    def _mapped(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return self.map(x)


def _weighted_mean(terms: list[tuple[float, float]]) -> float:
    """Mean of values, given in pairs of a weight and a value."""
    return sum(weight * value for weight, value in terms) / sum(weight for weight, _ in terms)
