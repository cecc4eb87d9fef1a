"""Test suites of the laws that every manifold, kernel and drift field must satisfy.

Each function raises AssertionError naming the law that does not hold. Give float64 points: the laws are
checked to `tol`, against finite differences and direct sums, never against the code under test itself.

    def test_my_manifold():
        manifold = MyManifold()
        check_manifold(manifold, x, y)          # two clouds of n points each
        check_drift(manifold, Laplace(0.5), x, y)
        check_field(MyField(manifold), Batch(x, y[:5], y[5:]))
"""

import copy
import math
from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from drift_core.drift import drift
from drift_core.field import Batch, Drift, Field, diagnostics, modules_of, observe
from drift_core.kernel import RadialKernel
from drift_core.manifold import Manifold
from drift_core.reduction import merge_scores
from drift_core.score import smoothed_score

_STEP = 1e-5


def check_manifold(
    manifold: Manifold, x: Float[Tensor, "n ..."], y: Float[Tensor, "n ..."], *, tol: float = 1e-7
) -> None:
    """Check the laws of a manifold on n >= 3 pairs (x_i, y_i) of points closer than its injectivity radius.

    Projections are idempotent, exp and log are inverse, the distance is a metric, is the length of the
    logarithm and has the logarithm as (minus) its gradient, all pairs agree with the point functions,
    coincident points give zeros, and float32 stays float32.
    """
    _check_projections(manifold, x, y, tol)
    _check_geodesics(manifold, x, y, tol)
    _check_metric(manifold, x, y, tol)
    _check_pairs(manifold, x, y, tol)
    _check_coincident(manifold, x, tol)


def check_isometry(
    manifold: Manifold,
    move: Callable[[Tensor], Tensor],
    x: Float[Tensor, "n ..."],
    y: Float[Tensor, "n ..."],
    *,
    tol: float = 1e-7,
) -> None:
    """Check that a map of the manifold to itself, such as a rotation, keeps its geometry.

    It keeps distances, and carries logarithms, and sums of them over all pairs, along by its differential.
    """
    there, end = move(x), move(y)
    _close(manifold.dist(there, end), manifold.dist(x, y), tol, "an isometry keeps distances")
    _close(manifold.cdist(there, end), manifold.cdist(x, y), tol, "an isometry keeps all distances")
    ones = torch.ones(len(x), len(y)).to(x)
    for u, moved in (
        (manifold.logmap(x, y), manifold.logmap(there, end)),
        (manifold.log_sum(x, y, ones), manifold.log_sum(there, end, ones)),
    ):
        carried = torch.func.jvp(move, (x,), (u,))[1]
        _close(
            manifold.proju(there, carried), moved, 10 * tol * len(y), "an isometry carries logarithms along"
        )


def check_kernel(kernel: RadialKernel, r: Float[Tensor, " n"], *, tol: float = 1e-6) -> None:
    """Check the laws of a radial kernel at distances r > 0: dlog is the derivative of log, both finite."""
    for value, name in ((kernel.log(r), "log"), (kernel.dlog(r), "dlog")):
        _law(value.shape == r.shape and value.dtype == r.dtype, f"{name} keeps shape and dtype")
        _law(bool(value.isfinite().all()), f"{name} is finite")
        zero = getattr(kernel, name)(torch.zeros_like(r))
        _law(bool(zero.isfinite().all()), f"{name} is finite at r = 0")
        single = getattr(kernel, name)(r.float())
        _law(single.dtype == torch.float32, f"{name} keeps float32")
        _close(single.double(), value, 1e-4 * (1 + value.abs().max()), f"{name} in float32 agrees")
    h = _STEP * r
    slope = (kernel.log(r + h) - kernel.log(r - h)) / (2 * h)
    _close(kernel.dlog(r), slope, tol * (1 + slope.abs().max()), "dlog is the derivative of log")
    grid = kernel.log(r[:, None].expand(-1, 2))
    _close(grid[:, 0], kernel.log(r), tol, "log is elementwise")


def check_drift(
    manifold: Manifold,
    kernel: RadialKernel,
    x: Float[Tensor, "n ..."],
    y: Float[Tensor, "m ..."],
    *,
    tol: float = 1e-5,
) -> None:
    """Check the laws of the drift field of a manifold and a kernel, at queries x and references y.

    The gradient is that of the log-density, the field is antisymmetric and vanishes between equal clouds,
    is tangent, and does not depend on the order of the references or on how they are chunked; excluded
    references have no effect.
    """
    _check_gradient(manifold, kernel, x, y, tol)
    for direction in ("gradient", "displacement"):
        half = len(y) // 2
        data, model = y[:half], y[half:]
        v = drift(manifold, kernel, x, data, model, direction=direction)
        size = tol * (1 + v.abs().max())
        swapped = drift(manifold, kernel, x, model, data, direction=direction)
        _law(bool((v == -swapped).all()), "swapping data and model flips the sign of the field")
        same = drift(manifold, kernel, x, y, y, direction=direction)
        _law(bool((same == 0).all()), "equal clouds give exactly zero")
        _close(manifold.proju(x, v), v, size, "the field is tangent")
        mixed = drift(manifold, kernel, x, data.flip(0), model.flip(0), direction=direction)
        _close(mixed, v, size, "the order of the references does not matter")
        chunked = drift(manifold, kernel, x, data, model, direction=direction, chunk_size=2)
        _close(chunked, v, size, "chunking does not change the field")
        _check_merge(manifold, kernel, x, y, direction, size)
        _check_self_exclusion(manifold, kernel, x, data, direction, size)


def check_field(
    field: Field,
    batch: Batch,
    *,
    swapped: Batch | None = None,
    equal: Batch | None = None,
    antisymmetric: bool = True,
    tol: float = 1e-6,
) -> None:
    """Check the laws of a drift field on a batch of float64 samples.

    The drift is finite, tangent and repeatable: evaluation changes nothing, only `observe` may. Rows are
    independent, so that neither the number of processes nor the order of the samples matters; nor does a
    `chunk_size`, if the field has one. Diagnostics are finite numbers. The field is antisymmetric in data and
    model, and vanishes if they are equal.

    Args:
        batch: samples and data and, if the field wants them, conditions.
        swapped: the batch with data and model exchanged; None: made from the batch, if its data are points.
        equal: the batch with a model that equals the data; None: made from the batch, if its data are points.
        antisymmetric: whether to check the last two laws.
        tol: largest error, relative to the largest entry of the drift.

    Raises:
        AssertionError: naming the law that does not hold.
    """
    drift = field(batch)
    size = tol * (1 + torch.cat([part.flatten() for part in drift]).abs().max())
    for part, name in zip(drift, Drift._fields, strict=True):
        _law(part.shape == batch.x.shape and part.dtype == batch.x.dtype, f"{name} is shaped as the samples")
        _law(bool(part.isfinite().all()), f"{name} is finite")
        _close(field.manifold.proju(batch.x, part), part, size, f"{name} is tangent")
    _check_unchanged(field, batch)
    _check_rows(field, batch, drift, size)
    if hasattr(field, "chunk_size"):
        chunked = copy.copy(field)
        object.__setattr__(chunked, "chunk_size", 2)  # of a frozen dataclass, too
        for part, whole in zip(chunked(batch), drift, strict=True):
            _close(part, whole, size, "chunking does not change the field")
    if antisymmetric:
        _check_antisymmetry(field, batch, swapped, equal, size)


def _check_unchanged(field: Field, batch: Batch) -> None:
    state = nn.ModuleList(modules_of(field)).state_dict()
    before, first = copy.deepcopy(state), field(batch)
    found = diagnostics(field, batch.head(max(1, len(batch.x) // 2)))
    _law(all(math.isfinite(value) for value in found.values()), "diagnostics are finite numbers")
    state = nn.ModuleList(modules_of(field)).state_dict()
    unchanged = before.keys() == state.keys() and all(map(torch.equal, before.values(), state.values()))
    _law(unchanged, "evaluating a field does not change it")
    _law(all(map(torch.equal, first, field(batch))), "a field is the same when it is asked for again")
    observe(copy.deepcopy(field), batch)


def _check_rows(field: Field, batch: Batch, drift: Drift, size: Tensor) -> None:
    """Check the drift of each half of the samples, as of a process, and of their reverse."""
    model, own = batch.negatives()
    there = batch.condition if batch.model is None else batch.model_condition
    pooled = replace(batch, model=model, self_index=own, model_condition=there)
    cut = (len(batch.x) + 1) // 2
    for rows in (torch.arange(cut), torch.arange(cut, len(batch.x)), torch.arange(len(batch.x)).flip(0)):
        part = field(_take(pooled, rows.to(model.device)))
        for some, whole in zip(part, drift, strict=True):
            _close(some, whole[rows.to(model.device)], size, "rows of a drift do not depend on one another")


def _take(batch: Batch, rows: Tensor) -> Batch:
    """The batch with some of its samples, and the same samples that repel."""
    return replace(
        batch,
        x=batch.x[rows],
        self_index=None if batch.self_index is None else batch.self_index[rows],
        condition=None if batch.condition is None else batch.condition[rows],
    )


def _check_antisymmetry(
    field: Field, batch: Batch, swapped: Batch | None, equal: Batch | None, size: Tensor
) -> None:
    """Check antisymmetry and zeros, without self-exclusion."""
    model, _ = batch.negatives()
    among = replace(batch, model=model, self_index=None)
    plain = all(part is None for part in (batch.condition, batch.data_log_weight, batch.model_log_weight))
    if plain and batch.data.is_floating_point() and batch.data.shape[1:] == model.shape[1:]:
        swapped = swapped or replace(among, data=model, model=batch.data)
        equal = equal or replace(among, model=batch.data)
    if swapped is not None:
        there, back = field(among).field, field(swapped).field
        _close(back, -there, size, "swapping data and model flips the sign of the field")
    if equal is not None:
        v = field(equal).field
        _close(v, torch.zeros_like(v), size, "equal clouds exert no drift")


def _check_projections(manifold: Manifold, x: Tensor, y: Tensor, tol: float) -> None:
    _close(manifold.projx(x), x, tol, "projx leaves points of the manifold alone")
    u = manifold.proju(x, y)
    _close(manifold.proju(x, u), u, tol, "proju is idempotent")
    _law(bool((manifold.inner(x, u, u) >= 0).all()), "inner is positive on tangent vectors")


def _check_geodesics(manifold: Manifold, x: Tensor, y: Tensor, tol: float) -> None:
    u = manifold.logmap(x, y)
    _close(manifold.proju(x, u), u, tol, "logmap is tangent")
    # A point may have several representatives, as a rotation has two quaternions.
    _close_points(manifold, manifold.expmap(x, u), y, tol, "expmap inverts logmap")
    _close(manifold.logmap(x, manifold.expmap(x, u / 2)), u / 2, tol, "logmap inverts expmap")
    _close(manifold.norm(x, u), manifold.dist(x, y), tol, "dist is the length of logmap")


def _check_metric(manifold: Manifold, x: Tensor, y: Tensor, tol: float) -> None:
    z = y.roll(1, 0)
    _close(manifold.dist(x, y), manifold.dist(y, x), tol, "dist is symmetric")
    detour = manifold.dist(x, z) + manifold.dist(z, y)
    _law(bool((manifold.dist(x, y) <= detour + tol).all()), "dist obeys the triangle inequality")
    u = manifold.logmap(x, z)
    ends = (manifold.dist(manifold.expmap(x, s * _STEP * u), y).square() / 2 for s in (1, -1))
    slope = next(ends) - next(ends)
    expected = -manifold.inner(x, manifold.logmap(x, y), u)
    _close(slope / (2 * _STEP), expected, 1e3 * tol, "the gradient of dist^2 / 2 is -logmap")


def _check_pairs(manifold: Manifold, x: Tensor, y: Tensor, tol: float) -> None:
    r, log_sum = manifold.cdist(x, y), torch.zeros_like(x)
    weight = torch.linspace(0.5, 2, r.numel()).to(r).reshape(r.shape)
    for j in range(len(y)):
        target = y[j].expand_as(x)
        _close(r[:, j], manifold.dist(x, target), tol, "cdist agrees with dist")
        w = weight[:, j].reshape(-1, *(1,) * manifold.point_ndim)
        log_sum = log_sum + w * manifold.logmap(x, target)
    _close(manifold.log_sum(x, y, weight), log_sum, 10 * tol * len(y), "log_sum agrees with logmap")


def _check_coincident(manifold: Manifold, x: Tensor, tol: float) -> None:
    zero = torch.zeros_like(x)
    _close_points(manifold, manifold.expmap(x, zero), x, tol, "expmap of zero stays put")
    _close(manifold.logmap(x, x), zero, 1e-3, "logmap of a point to itself is zero")
    _close(manifold.dist(x, x), zero.flatten(1)[:, 0], 1e-3, "dist of a point to itself is zero")
    ones = torch.ones(len(x), len(x)).to(x)
    _law(bool(manifold.pairs(x, x).direction_sum(ones).isfinite().all()), "coincident pairs give finite sums")
    for f in (
        manifold.projx(x.float()),
        manifold.logmap(x.float(), x.float()),
        manifold.cdist(x.float(), x.float()),
    ):
        _law(f.dtype == torch.float32, "float32 stays float32")


def _check_gradient(manifold: Manifold, kernel: RadialKernel, x: Tensor, y: Tensor, tol: float) -> None:
    score = smoothed_score(manifold, kernel, x, y)

    def log_density(at: Tensor) -> Tensor:
        rows = [kernel.log(manifold.dist(at, point.expand_as(at))) for point in y]
        return torch.stack(rows).logsumexp(0)

    _close(score.log_density, log_density(x), tol, "log_density is the logsumexp of the kernel")
    u = manifold.logmap(x, y[torch.arange(len(x)) % len(y)])
    ends = [log_density(manifold.expmap(x, s * _STEP * u)) for s in (1, -1)]
    slope = (ends[0] - ends[1]) / (2 * _STEP)
    inner = manifold.inner(x, score.gradient, u)
    _close(inner, slope, tol * (1 + slope.abs().max()), "the gradient is that of the log-density")


def _check_merge(
    manifold: Manifold, kernel: RadialKernel, x: Tensor, y: Tensor, direction: str, tol: Tensor
) -> None:
    whole = smoothed_score(manifold, kernel, x, y, direction=direction)
    cut = len(y) // 3 + 1
    parts = [smoothed_score(manifold, kernel, x, part, direction=direction) for part in (y[:cut], y[cut:])]
    merged = merge_scores(*parts)
    _close(merged.gradient, whole.gradient, tol, "merged scores give the gradient of the union")
    _close(merged.log_density, whole.log_density, tol, "merged scores give the density of the union")
    excluded = torch.zeros(len(y)).to(x).index_fill(0, torch.arange(cut, len(y)), -torch.inf)
    kept = smoothed_score(manifold, kernel, x, y, direction=direction, log_weight=excluded)
    _close(kept.gradient, parts[0].gradient, tol, "a log-weight of -inf excludes a reference")


def _check_self_exclusion(
    manifold: Manifold, kernel: RadialKernel, x: Tensor, data: Tensor, direction: str, tol: Tensor
) -> None:
    v = drift(manifold, kernel, x, data, direction=direction)
    others = [torch.cat([x[:i], x[i + 1 :]]) for i in range(len(x))]
    rows = [
        drift(manifold, kernel, x[i : i + 1], data, others[i], direction=direction) for i in range(len(x))
    ]
    _close(v, torch.cat(rows), tol, "without a model, samples repel all others but not themselves")


def _close(actual: Tensor, expected: Tensor, tol: float | Tensor, law: str) -> None:
    error = (actual - expected).abs().max() if actual.numel() else torch.zeros(())
    _law(bool(error <= tol), f"{law} (off by {float(error):.3g}, allowed {float(tol):.3g})")


def _close_points(manifold: Manifold, actual: Tensor, expected: Tensor, tol: float, law: str) -> None:
    gap = manifold.dist(actual, expected)
    _close(gap, torch.zeros_like(gap), tol, law)


def _law(holds: bool, law: str) -> None:
    if not holds:
        raise AssertionError(f"law violated: {law}")
