"""Composite fields: weighted sums, pullbacks along a map, locations, and fixed tables of data."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from drift_core.field import Batch, Drift, Field, diagnostics, observe, observes, separable
from drift_core.manifold import Manifold, Power


@dataclass(frozen=True)
class SumField:
    """Weighted sum of drift fields on one manifold, sum_s w_s V_s.

    For kernel-gradient fields and scalar weights it is the gradient of sum_s w_s log p_s/q_s, and vanishes
    where all the smoothed densities agree. A weight may also be a tensor that broadcasts to the points, such
    as one number per position [L, 1] for points [L, d] of `Power`; it must keep tangent vectors tangent.

    Raises ValueError for no field, unequal numbers of fields and weights, weights that are not positive, or
    different manifolds.
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
        """Weighted sums of the attractions and of the repulsions."""
        sums = [torch.zeros_like(batch.x) for _ in Drift._fields]
        for field, weight in zip(self.fields, self.weights, strict=True):
            scale = torch.as_tensor(weight, dtype=batch.x.dtype, device=batch.x.device)
            for total, part in zip(sums, field(batch), strict=True):
                total.addcmul_(scale, part)
        return Drift(*sums)

    def separable(self, batch: Batch) -> bool:
        """Whether all the fields are."""
        return all(separable(field, batch) for field in self.fields)

    @property
    def observes(self) -> bool:
        """Whether any of the fields observes batches."""
        return any(map(observes, self.fields))

    def observe(self, batch: Batch) -> None:
        """Let every field observe the batch."""
        for field in self.fields:
            observe(field, batch)

    def diagnostics(self, batch: Batch) -> dict[str, float]:
        """Diagnostics averaged by name over the fields that report them, by their (mean) weights."""
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
    the derivative of the map, by automatic differentiation unless it is given; the repulsion likewise. If
    the inner field is a difference of scores, so is this one. It is zero if the images of data and model
    have the same distribution: it does not constrain what the map discards (combine it with others by
    `SumField`).
    """

    map: Callable[[Tensor], Tensor]
    """Differentiable map from points [n, *point] of `manifold` to points [n, *image] of the inner field."""
    field: Field
    """The inner field."""
    manifold: Manifold
    """The geometry of the samples."""
    map_data: Callable[[Tensor], Tensor] | None = None
    """Maps data to the data of the inner field; None: `map`."""
    adjoint: Callable[[Tensor, Tensor], Tensor] | None = None
    """J^T: maps x and tangent vectors at the images to tangent vectors at x."""

    def __call__(self, batch: Batch) -> Drift:
        """Pullback of the inner field at the images."""
        if self.adjoint is not None:
            inner = self.field(self._image_of(batch, self._mapped(batch.x)))
            return Drift(*(self.adjoint(batch.x, vector) for vector in inner))
        with torch.enable_grad():
            x = batch.x.detach().requires_grad_()
            images = self.map(x)
        inner = self.field(self._image_of(batch, images.detach()))
        return Drift(*(self._pull(x, images, vector) for vector in inner))

    def separable(self, batch: Batch) -> bool:
        """Whether the inner field is."""
        return separable(self.field, batch)

    @property
    def observes(self) -> bool:
        """Whether the inner field observes batches."""
        return observes(self.field)

    def observe(self, batch: Batch) -> None:
        """Let the inner field observe the images."""
        observe(self.field, self._image_of(batch, self._mapped(batch.x)))

    def diagnostics(self, batch: Batch) -> dict[str, float]:
        """Diagnostics of the inner field."""
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
        conditions = batch.condition if batch.model is None else batch.model_condition
        return replace(
            batch, x=images, data=data, model=repelling, self_index=own, model_condition=conditions
        )

    def _mapped(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return self.map(x)


@dataclass(frozen=True)
class LocationField:
    """A field at each location of points [n, L, *point] by itself, each its own drift problem.

    Behind a `PullbackField`, for the feature maps of an encoder: one evaluation of it serves all locations.
    Lengthscales in units of the batch (`AdaptiveField`) are those of each location.
    """

    field: Field
    """The field at every location."""

    @property
    def manifold(self) -> Manifold:
        """The product of the geometries of all locations."""
        return Power(self.field.manifold)

    def __call__(self, batch: Batch) -> Drift:
        """Drift of the field at every location."""
        parts = [self.field(part) for part in self._parts(batch)]
        return Drift(*(torch.stack(part, dim=1) for part in zip(*parts, strict=True)))

    def separable(self, batch: Batch) -> bool:
        """Whether the field at every location is."""
        return separable(self.field, batch)

    @property
    def observes(self) -> bool:
        """Whether the wrapped field observes batches."""
        return observes(self.field)

    def observe(self, batch: Batch) -> None:
        """Let the field observe every location."""
        for part in self._parts(batch):
            observe(self.field, part)

    def diagnostics(self, batch: Batch) -> dict[str, float]:
        """Diagnostics averaged over the locations."""
        found = [diagnostics(self.field, part) for part in self._parts(batch)]
        return {name: _weighted_mean([(1.0, part[name]) for part in found]) for name in found[0]}

    def _parts(self, batch: Batch) -> Iterator[Batch]:
        model, own = batch.negatives()
        for at in range(batch.x.shape[1]):
            x, data = batch.x[:, at].contiguous(), batch.data[:, at].contiguous()
            yield replace(batch, x=x, data=data, model=model[:, at].contiguous(), self_index=own)


class TableField(nn.Module):
    """Field whose data are a fixed table of distinct points, each weighted by its count.

    A batch's data have no effect. Where few distinct data occur, all of them attract at every step, without
    the noise of a random draw.

    Raises ValueError unless there are as many counts as data, all of them positive.
    """

    data: Tensor
    """Distinct data points, or tokens, [m, ...]."""
    log_count: Tensor
    """Logarithms of the counts, [m]."""

    def __init__(self, field: Field, data: Tensor, counts: Tensor) -> None:
        super().__init__()
        if counts.shape != data.shape[:1] or not bool((counts > 0).all()):
            raise ValueError(f"{len(data)} data need as many positive counts, got {list(counts.shape)}")
        self.field = field
        self.register_buffer("data", data, persistent=False)
        self.register_buffer("log_count", counts.double().log(), persistent=False)

    @property
    def manifold(self) -> Manifold:
        """Geometry of the field."""
        return self.field.manifold

    def __call__(self, batch: Batch) -> Drift:
        """Drift of the wrapped field, with the table as data."""
        return self.field(self._with_table(batch))

    @property
    def observes(self) -> bool:
        """Whether the wrapped field observes batches."""
        return observes(self.field)

    def observe(self, batch: Batch) -> None:
        """Let the wrapped field observe the batch with the table as data."""
        observe(self.field, self._with_table(batch))

    def diagnostics(self, batch: Batch) -> dict[str, float]:
        """Diagnostics of the wrapped field, with the table as data."""
        return diagnostics(self.field, self._with_table(batch))

    def _with_table(self, batch: Batch) -> Batch:
        return replace(batch, data=self.data, data_log_weight=self.log_count.to(batch.x.dtype))


def _weighted_mean(terms: list[tuple[float, float]]) -> float:
    """Weighted mean of pairs (weight, value)."""
    return sum(weight * value for weight, value in terms) / sum(weight for weight, _ in terms)
