"""Fields that are made of fields: their laws, closed forms, and what they cannot see."""

import math
from dataclasses import dataclass, replace

import geoopt
import pytest
import torch
from drift_core import (
    BalancedField,
    Batch,
    ConditionalField,
    Drift,
    Euclidean,
    Field,
    Gaussian,
    GeooptManifold,
    Hyperboloid,
    KernelField,
    LabelledField,
    Laplace,
    LocationField,
    Manifold,
    Matern,
    NearestField,
    NormalizedField,
    Power,
    PullbackField,
    Sphere,
    SphericalMatern,
    SumField,
    TableField,
    drift,
    smoothed_score,
)
from drift_core.field import diagnostics, observe, observes
from drift_core.lengthscale import Lengthscales, parse_lengthscales
from drift_core.testing import check_field
from torch import Tensor

KERNELS = {
    "laplace": Laplace,
    "gaussian": Gaussian,
    "matern-1.5": lambda scale: Matern(scale, 1.5),
    "matern-0.7": lambda scale: Matern(scale, 0.7),
}


def batch_of(cloud) -> Batch:
    return Batch(cloud(6, 0), cloud(9, 1), torch.cat([cloud(6, 0), cloud(4, 2)]), torch.arange(6))


# Each kernel, and each kind of lengthscales; a field makes its kernels of them, one by one.
@pytest.mark.parametrize("direction", ["gradient", "displacement"])
@pytest.mark.parametrize(
    ("kernel", "scales"),
    [("laplace", "0.4,1.2"), ("gaussian", "0.7"), ("matern-1.5", "2:0.5"), ("matern-0.7", "0.7")],
)
def test_kernel_fields_obey_the_laws(manifold, cloud, kernel, scales, direction):
    field = KernelField(manifold, KERNELS[kernel], parse_lengthscales(scales), direction)
    for batch in (batch_of(cloud), Batch(cloud(6, 0), cloud(9, 1)), replace(batch_of(cloud), progress=0.2)):
        check_field(field, batch)


@pytest.mark.parametrize("nu", [0.5, 2.5, math.inf])
def test_spectral_fields_obey_the_laws(sphere_cloud, nu):
    field = KernelField(Sphere(), lambda scale: SphericalMatern(scale, nu), Lengthscales((0.5,)))
    check_field(field, batch_of(sphere_cloud))


def test_drift_is_the_kernel_field_at_one_lengthscale(manifold, cloud):
    field, batch = KernelField(manifold, Laplace, Lengthscales((0.7,))), batch_of(cloud)
    expected = drift(manifold, Laplace(0.7), batch.x, batch.data, batch.model, self_index=batch.self_index)
    assert torch.equal(field(batch).field, expected)
    alone = Batch(batch.x, batch.data)
    assert torch.equal(field(alone).field, drift(manifold, Laplace(0.7), batch.x, batch.data))


def test_fields_that_learn_obey_the_laws_and_change_when_they_observe_alone(manifold, cloud):
    plain = KernelField(manifold, Laplace, Lengthscales((0.7,)))
    indices = replace(batch_of(cloud), data=torch.arange(9), progress=0.0)
    balanced = BalancedField(plain, cloud(9, 1))
    check_field(balanced, indices)
    before = balanced.potential.clone()
    observe(balanced, indices)
    assert not torch.equal(balanced.potential, before)
    check_field(balanced, indices)
    bounded = BalancedField(plain, cloud(9, 1), limit=0.01)
    observe(bounded, indices)
    assert float(bounded.potential.max()) == pytest.approx(0.005)
    check_field(bounded, indices)

    nearest = NearestField(plain, cloud(9, 1), buffer_size=10, neighbors=10, tolerance=0.9)
    check_field(nearest, batch_of(cloud))
    observe(nearest, batch_of(cloud))
    assert int(nearest.filled) == 10
    # It now answers for all data and the replay buffer, whatever the batch holds.
    check_field(nearest, batch_of(cloud), antisymmetric=False)


PLAIN = KernelField(Euclidean(), Laplace, Lengthscales((0.7,)))
POINTS, LABELS = torch.arange(8.0).view(4, 2), torch.tensor([0, 1, 0, 1])
OF_OTHERS = {
    "sum": lambda field: SumField([PLAIN, field], [1.0, 1.0]),
    "pullback": lambda field: PullbackField(torch.sin, field, Euclidean()),
    "location": LocationField,
    "table": lambda field: TableField(field, POINTS, torch.ones(4)),
    "normalized": NormalizedField,
    "conditional": ConditionalField,
    "labelled": lambda field: LabelledField(field, POINTS, LABELS),
}


class Watching(KernelField):
    """A field that keeps the batches that it observes."""

    def observe(self, batch: Batch) -> None:
        seen.append(batch)


seen: list[Batch] = []


@pytest.mark.parametrize("kind", OF_OTHERS)
def test_a_field_of_others_observes_what_they_do(kind):
    wrap = OF_OTHERS[kind]
    watching = wrap(Watching(Euclidean(), Laplace, Lengthscales((0.7,))))
    assert observes(watching)
    assert observes(wrap(watching))
    assert not observes(wrap(PLAIN))
    assert not observes(wrap(wrap(PLAIN)))
    shape = (4, 2, 2) if kind == "location" else (4, 2)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    data = torch.arange(4) if kind == "labelled" else x
    seen.clear()
    observe(watching, Batch(x, data, condition=LABELS, data_condition=LABELS))
    assert len(seen) == (2 if kind == "location" else 1)


def test_no_map_is_evaluated_for_a_field_that_observes_nothing():
    def refuse(_: Tensor) -> Tensor:
        raise AssertionError("the map was evaluated")

    observe(SumField([PullbackField(refuse, PLAIN, Euclidean())], [1.0]), Batch(POINTS, POINTS))


def test_sums_obey_the_laws_and_are_sums(manifold, cloud):
    parts = [KernelField(manifold, kernel, Lengthscales((0.7,))) for kernel in (Laplace, Gaussian)]
    field, batch = SumField(parts, [0.1, 2.0]), batch_of(cloud)
    check_field(field, batch)
    expected = 0.1 * parts[0](batch).field + 2 * parts[1](batch).field
    torch.testing.assert_close(field(batch).field, expected, rtol=1e-13, atol=1e-13)
    ess = [diagnostics(part, batch)["ess"] for part in parts]
    assert diagnostics(field, batch) == pytest.approx({"ess": (0.1 * ess[0] + 2 * ess[1]) / 2.1})


def test_weights_may_vary_over_positions():
    """Fields of several positions that each count at some of them, by one number a position."""
    space = Power(Sphere())
    generator = torch.Generator().manual_seed(0)
    draw = lambda n: space.projx(torch.randn(n, 4, 3, generator=generator, dtype=torch.float64))  # noqa: E731
    parts = [KernelField(space, kernel, Lengthscales((0.7,))) for kernel in (Laplace, Gaussian)]
    weight = torch.tensor([[0.5], [1.0], [2.0], [3.0]])
    field, batch = SumField(parts, [weight, 0.25]), Batch(draw(5), draw(9), draw(7))
    check_field(field, batch)
    a, b = (part(batch).field for part in parts)
    for position, factor in enumerate((0.5, 1.0, 2.0, 3.0)):
        expected = factor * a[:, position] + 0.25 * b[:, position]
        torch.testing.assert_close(field(batch).field[:, position], expected, rtol=1e-13, atol=1e-13)
    ess = [diagnostics(part, batch)["ess"] for part in parts]
    assert diagnostics(field, batch) == pytest.approx({"ess": (1.625 * ess[0] + 0.25 * ess[1]) / 1.875})


def test_sums_that_make_no_sense_are_refused():
    field = KernelField(Sphere(), Laplace, Lengthscales((0.7,)))
    with pytest.raises(ValueError, match="as many weights as fields"):
        SumField([field], [1.0, 2.0])
    with pytest.raises(ValueError, match="as many weights as fields"):
        SumField([], [])
    with pytest.raises(ValueError, match=r"positive, got \[0\.0\]"):
        SumField([field], [0.0])
    with pytest.raises(ValueError, match="positive, got"):
        SumField([field], [torch.tensor([[1.0], [0.0]])])
    with pytest.raises(ValueError, match=r"have no sum, got Euclidean\(\), Sphere\(\)"):
        SumField([field, replace(field, manifold=Euclidean())], [1.0, 1.0])


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_pullback_by_the_identity_is_the_field(manifold, cloud, kernel):
    plain = KernelField(manifold, KERNELS[kernel], Lengthscales((0.7,)))
    field, batch = PullbackField(lambda x: x, plain, manifold), batch_of(cloud)
    check_field(field, batch)
    for part, expected in zip(field(batch), plain(batch), strict=True):
        torch.testing.assert_close(part, expected, rtol=1e-9, atol=1e-9)
    assert diagnostics(field, batch) == diagnostics(plain, batch)


def features(x: Tensor) -> Tensor:
    """A smooth map of points of any shape to R^3, which is neither linear nor isometric."""
    flat = x.flatten(1)
    weight = torch.linspace(-1, 1, 3 * flat.shape[1], dtype=x.dtype).reshape(flat.shape[1], 3)
    return torch.tanh(flat @ weight) + 0.1 * (flat @ weight.flip(0)).square()


# Maps from any of the manifolds, and where they lead.
MAPS: dict[str, tuple] = {
    "euclidean": (features, Euclidean()),
    "sphere": (lambda x: Sphere().projx(features(x) + torch.tensor([1.0, 0.0, 0.0]).to(x)), Sphere()),
    "hyperboloid": (lambda x: Hyperboloid().projx(features(x)), Hyperboloid()),
    "ball": (lambda x: features(x).tanh() / 2, GeooptManifold(geoopt.PoincareBall())),
}


@pytest.mark.parametrize("direction", ["gradient", "displacement"])
@pytest.mark.parametrize("image", MAPS)
def test_pullbacks_obey_the_laws_and_are_gradients_of_log_densities(manifold, cloud, image, direction):
    """Against finite differences of log sum_j k(map(x), map(y_j)) along geodesics, between all geometries."""
    mapping, there = MAPS[image]
    inner = KernelField(there, Gaussian, Lengthscales((0.7,)), direction)
    field, batch = PullbackField(mapping, inner, manifold), batch_of(cloud)
    check_field(field, batch, tol=1e-5)
    unit = 1 if direction == "gradient" else 0.49  # for Gaussian kernels
    u = manifold.proju(batch.x, cloud(6, 5))
    u = u / manifold.norm(batch.x, u).reshape(-1, *(1,) * manifold.point_ndim)

    def log_density(x: Tensor, references: Tensor) -> Tensor:
        return smoothed_score(there, Gaussian(0.7), mapping(x), mapping(references)).log_density

    for part, references in ((field(batch).attraction, batch.data), (field(batch).repulsion, batch.model)):
        if references is batch.model:
            part = field(replace(batch, self_index=None)).repulsion
        ends = [log_density(manifold.expmap(batch.x, s * 1e-5 * u), references) for s in (1, -1)]
        slope = (ends[0] - ends[1]) / 2e-5
        found = manifold.inner(batch.x, part, u)
        torch.testing.assert_close(found, unit * slope, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pullbacks_keep_the_precision_of_the_samples(manifold, cloud, dtype):
    field = PullbackField(features, KernelField(Euclidean(), Laplace, Lengthscales((0.7,))), manifold)
    exact = field(batch_of(cloud)).field
    batch = Batch(cloud(6, 0, dtype), cloud(9, 1, dtype), torch.cat([cloud(6, 0), cloud(4, 2)]).to(dtype))
    v = field(replace(batch, self_index=torch.arange(6))).field
    assert v.dtype == dtype
    torch.testing.assert_close(v.double(), exact, rtol=1e-3, atol=1e-3 * float(exact.abs().max()))


def test_data_that_are_no_points_have_a_map_of_their_own():
    """Tokens, say: here rows of a table."""
    table = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x, tokens = table[:2] + 1, torch.tensor([4, 0, 3, 3])
    plain = KernelField(Euclidean(), Laplace, Lengthscales((0.7,)))
    field = PullbackField(features, plain, Euclidean(), map_data=lambda tokens: features(table[tokens]))
    check_field(field, Batch(x, tokens))
    expected = PullbackField(features, plain, Euclidean())(Batch(x, table[tokens]))
    torch.testing.assert_close(field(Batch(x, tokens)).field, expected.field)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_table_attracts_as_its_data_repeated_by_their_counts(manifold, cloud, dtype):
    x, data, model = cloud(6, 0, dtype), cloud(4, 1, dtype), cloud(5, 2, dtype)
    inner, counts = KernelField(manifold, Laplace, Lengthscales((0.7,))), torch.tensor([1, 3, 2, 7])
    field = TableField(inner, data, counts)
    batch, repeated = Batch(x, cloud(2, 3, dtype), model), Batch(x, data.repeat_interleave(counts, 0), model)
    torch.testing.assert_close(field(batch), inner(repeated))
    assert diagnostics(field, batch) == pytest.approx(diagnostics(TableField(inner, data, counts), repeated))
    zero = field(replace(batch, model=data.repeat_interleave(counts, 0)))
    torch.testing.assert_close(zero.attraction, zero.repulsion)
    if dtype == torch.float64:  # data and model have no symmetry: a table stays what it is
        check_field(field, batch, antisymmetric=False)


@pytest.mark.parametrize("counts", [[1.0, 2.0], [1.0, 2.0, 0.0], [1.0, 2.0, -1.0]])
def test_a_table_needs_a_positive_count_for_each_of_its_data(counts, sphere_cloud):
    inner = KernelField(Sphere(), Laplace, Lengthscales((0.7,)))
    with pytest.raises(ValueError, match="3 data need as many positive counts"):
        TableField(inner, sphere_cloud(3, 0), torch.tensor(counts))


def test_a_map_that_forgets_identifies_its_own_marginal_alone():
    """Negative control: model and data that differ in what the map forgets exert no drift on one another."""
    first = lambda x: x[:, :1]  # noqa: E731
    plain = KernelField(Euclidean(), Laplace, Lengthscales((0.7,)))
    local = PullbackField(first, plain, Euclidean())
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(20, 2, generator=generator, dtype=torch.float64)
    model = torch.stack([data[:, 0], 3 + data[:, 1]], dim=1)
    x = torch.randn(5, 2, generator=generator, dtype=torch.float64)
    assert float(local(Batch(x, data, model)).field.abs().max()) < 1e-12
    assert float(SumField([local, plain], [1.0, 1.0])(Batch(x, data, model)).field.abs().max()) > 0.1


def test_a_map_that_does_not_depend_on_the_samples_exerts_no_drift():
    plain = KernelField(Euclidean(), Laplace, Lengthscales((0.7,)))
    field = PullbackField(lambda x: torch.ones(len(x), 2).to(x), plain, Euclidean())
    assert not field(Batch(torch.eye(3), torch.ones(4, 3))).field.any()


@dataclass
class HalfRepulsion:
    """Repels at half strength: a field of one's own, which does not vanish at p = q."""

    field: Field

    @property
    def manifold(self) -> Manifold:
        return self.field.manifold

    def __call__(self, batch: Batch) -> Drift:
        attraction, repulsion = self.field(batch)
        return Drift(attraction, repulsion / 2)


class Forgetful(KernelField):
    """A field that counts how often it was asked, and answers accordingly."""

    asked = 0

    def __call__(self, batch: Batch) -> Drift:
        Forgetful.asked += 1
        return Drift(*(part * Forgetful.asked for part in super().__call__(batch)))


class Mean(KernelField):
    """A field whose rows depend on one another."""

    def __call__(self, batch: Batch) -> Drift:
        return Drift(*(part - part.mean(0) for part in super().__call__(batch)))


@pytest.mark.parametrize(
    ("make", "law"),
    [
        (lambda plain: HalfRepulsion(plain), "flips the sign"),
        (lambda plain: Forgetful(Euclidean(), Laplace, plain.lengthscales), "asked for again"),
        (lambda plain: Mean(Euclidean(), Laplace, plain.lengthscales), "rows of a drift"),
        (lambda plain: replace(plain, manifold=Sphere(), kernel=lambda s: _Radial(s)), "tangent|finite|sign"),
    ],
    ids=["half-repulsion", "forgetful", "mean", "not-a-number"],
)
def test_the_suite_catches_fields_that_are_wrong(make, law, sphere_cloud):
    plain = KernelField(Euclidean(), Laplace, Lengthscales((0.7,)))
    with pytest.raises(AssertionError, match=law):
        check_field(make(plain), batch_of(sphere_cloud))


class _Radial(Laplace):
    def dlog(self, r: Tensor) -> Tensor:
        return r * math.nan
