"""Conditional fields: a problem a class, labelled data, memory banks, and guidance by score algebra."""

from dataclasses import dataclass, field, replace

import pytest
import torch
from drift_core import (
    Batch,
    ConditionalField,
    Drift,
    Euclidean,
    Field,
    Gaussian,
    KernelField,
    LabelledField,
    Laplace,
    LocationField,
    Manifold,
    MemoryBank,
    NormalizedField,
    PullbackField,
    Sinkhorn,
    Sphere,
    SumField,
    TrainConfig,
    class_conditions,
    geometric_mean,
    train,
)
from drift_core.field import diagnostics, modules_of, observe, separable
from drift_core.fields.conditional import power_law
from drift_core.lengthscale import Lengthscales
from drift_core.testing import check_field
from drift_core.training import Matched, in_runs, resample
from torch import Tensor, nn

LABELS, DATA_LABELS = torch.tensor([0, 1, 0, 2, 1, 0]), torch.arange(12) % 3
MORE = torch.tensor([0, 2, 2, 1])


def plain(manifold) -> KernelField:
    return KernelField(manifold, Laplace, Lengthscales((0.7,)))


def batch_of(cloud, condition: Tensor = LABELS, others: Tensor = MORE) -> Batch:
    return Batch(
        cloud(6, 0),
        cloud(12, 1),
        torch.cat([cloud(6, 0), cloud(4, 2)]),
        torch.arange(6),
        condition=condition,
        model_condition=torch.cat([condition, others]),
        data_condition=DATA_LABELS,
    )


def with_strength(labels: Tensor, strengths: list[float]) -> Tensor:
    return torch.stack([labels.double(), torch.tensor(strengths, dtype=torch.float64)[labels]], dim=1)


def test_conditional_fields_obey_the_laws(sphere_cloud):
    check_field(ConditionalField(NormalizedField(plain(Sphere()))), batch_of(sphere_cloud))


def test_every_class_is_a_problem_by_itself(manifold, cloud):
    field, batch = ConditionalField(plain(manifold)), batch_of(cloud)
    for label in range(3):
        own = torch.nonzero(label == LABELS)[:, 0]
        others = torch.cat([cloud(6, 0)[own], cloud(4, 2)[label == MORE]])
        alone = Batch(cloud(6, 0)[own], cloud(12, 1)[label == DATA_LABELS], others, torch.arange(len(own)))
        for whole, part in zip(field(batch), plain(manifold)(alone), strict=True):
            torch.testing.assert_close(whole[own], part)
    assert 1 <= diagnostics(field, batch)["ess"] <= 4


@dataclass
class Counted:
    """A field that counts its calls and, if it is told, does not keep problems apart."""

    field: Field
    apart: bool = False
    sizes: list[int] = field(default_factory=list)

    @property
    def manifold(self) -> Manifold:
        return self.field.manifold

    def __call__(self, batch: Batch) -> Drift:
        self.sizes.append(len(batch.x))
        return self.field(batch)

    def separable(self, batch: Batch) -> bool:
        return not self.apart and separable(self.field, batch)

    def diagnostics(self, batch: Batch) -> dict[str, float]:
        return diagnostics(self.field, batch)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
@pytest.mark.parametrize("strengths", [None, [1.0, 1.5, 4.0]])
def test_classes_are_evaluated_together_as_one_by_one(manifold, cloud, dtype, tolerance, strengths):
    """With weights, samples excluded from their own repulsion, and labels that no sample asks for."""
    labels, others = LABELS, MORE
    if strengths is not None:
        labels, others = (with_strength(part, strengths) for part in (labels, others))
    batch = batch_of(lambda n, seed: cloud(n, seed, dtype), labels, others)
    batch = replace(
        batch,
        data_condition=torch.arange(12) % 4,
        data_log_weight=torch.linspace(-1, 1, 12),
        model_log_weight=torch.linspace(0, 1, 10)[None],
    )
    together, apart = Counted(plain(manifold)), Counted(plain(manifold), apart=True)
    for one, other in zip(ConditionalField(together)(batch), ConditionalField(apart)(batch), strict=True):
        torch.testing.assert_close(one, other, atol=tolerance, rtol=tolerance)
    assert (together.sizes, apart.sizes) == ([6], [3, 2, 1])
    sizes = [diagnostics(ConditionalField(part), batch)["ess"] for part in (together, apart)]
    assert sizes[0] == pytest.approx(sizes[1], rel=tolerance)


def test_samples_without_company_and_many_small_classes(sphere_cloud):
    """100 classes of up to 3 samples: the repulsion of a sample that is alone is zero."""
    labels = torch.randint(100, (150,), generator=torch.Generator().manual_seed(0))
    data_labels = torch.arange(300) % 100
    batch = Batch(sphere_cloud(150, 0), sphere_cloud(300, 1), condition=labels, data_condition=data_labels)
    together, apart = Counted(plain(Sphere())), Counted(plain(Sphere()), apart=True)
    drift = ConditionalField(together)(batch)
    torch.testing.assert_close(drift.field, ConditionalField(apart)(batch).field)
    alone = labels.bincount()[labels] == 1
    assert bool((drift.repulsion[alone] == 0).all())
    assert bool(drift.repulsion[~alone].abs().amax(1).gt(0).all())
    assert len(together.sizes) < 10
    assert len(apart.sizes) == len(labels.unique())


def test_large_classes_are_evaluated_one_by_one(sphere_cloud):
    labels = torch.arange(400) % 2
    batch = Batch(sphere_cloud(400, 0), sphere_cloud(400, 1), condition=labels, data_condition=labels)
    counted = Counted(plain(Sphere()))
    ConditionalField(counted)(batch)
    assert counted.sizes == [200, 200]


@pytest.mark.parametrize("coupling", [geometric_mean, Sinkhorn(3)])
def test_couplings_of_classes_that_are_evaluated_together_are_those_of_each(sphere_cloud, coupling):
    """With weights; under guidance, and where the samples are a share of all, one class after another."""
    inner = replace(plain(Sphere()), coupling=coupling)
    few = replace(
        batch_of(sphere_cloud),
        model=sphere_cloud(6, 0),
        model_condition=LABELS,
        data_log_weight=torch.linspace(-1, 1, 12),
    )
    guided = with_strength(LABELS, [1.0, 1.5, 4.0])
    share = replace(few, x=few.x[2:], condition=LABELS[2:], self_index=torch.arange(2, 6))
    for batch, expected in (
        (few, [6]),
        (replace(few, condition=guided, model_condition=guided), [3, 2, 1]),
        (share, [2, 1, 1]),
    ):
        together, apart = Counted(inner), Counted(inner, apart=True)
        drift, loop = (ConditionalField(part)(batch) for part in (together, apart))
        torch.testing.assert_close(drift, loop)
        assert together.sizes == expected
    whole = ConditionalField(inner)(few).field[2:]
    torch.testing.assert_close(ConditionalField(inner)(share).field, whole)


def test_fields_of_statistics_of_the_batch_see_one_class_after_another(sphere_cloud):
    """Fields that keep problems apart compose, and remain what they are."""
    inner = plain(Euclidean())
    images = PullbackField(lambda x: x[:, :, None].expand(-1, -1, 2) ** 2, LocationField(inner), Euclidean())
    composed, batch = SumField([inner, images], [1.0, 0.5]), batch_of(sphere_cloud)
    assert separable(composed, batch)
    drift, expected = (ConditionalField(part)(batch) for part in (composed, Counted(composed, apart=True)))
    torch.testing.assert_close(drift, expected)
    bank = MemoryBank(inner, batch.data, num_classes=3, capacity=2)
    mixed = SumField([inner, NormalizedField(inner)], [1.0, 1.0])
    for other in (mixed, bank, LocationField(NormalizedField(inner))):
        assert not separable(other, batch)
    assert not separable(PullbackField(lambda x: x, NormalizedField(inner), Euclidean()), batch)


def test_strength_1_is_exactly_the_conditional_field(manifold, cloud):
    field = ConditionalField(plain(manifold))
    ones = batch_of(cloud, with_strength(LABELS, [1.0] * 3), with_strength(MORE, [1.0] * 3))
    for guided, conditional in zip(field(ones), field(batch_of(cloud)), strict=True):
        assert torch.equal(guided, conditional)


def test_guidance_follows_the_score_algebra(manifold, cloud):
    """V = r (s_c + (b - 1) (s_c - s_p) - s_q) with b = 1 / r, all by autograd of log-densities."""
    strengths = [2.5, 1.5, 4.0]
    condition, others = (with_strength(labels, strengths) for labels in (LABELS, MORE))
    batch = replace(batch_of(cloud, condition, others), self_index=None)
    field = ConditionalField(plain(manifold))

    def log_density(x: Tensor, y: Tensor) -> Tensor:
        """log mean_j k(x, y_j)."""
        r = torch.stack([manifold.dist(x, point.expand_as(x)) for point in y])
        return (-r / 0.7).logsumexp(0) - torch.tensor(float(len(y))).log()

    def score(x: Tensor, y: Tensor) -> Tensor:
        at = x.clone().requires_grad_()
        (covector,) = torch.autograd.grad(log_density(at, y).sum(), at)
        return manifold.egrad2rgrad(x, covector)

    x = manifold.projx(batch.x + 0.01)  # off the samples that repel, where distances have no gradient
    found = field(replace(batch, x=x)).field
    for label, strength in enumerate(strengths):
        rows = torch.nonzero(label == LABELS)[:, 0]
        c, q = batch.data[label == DATA_LABELS], batch.model[torch.cat([LABELS, MORE]) == label]
        s_c, s_p, s_q = (score(x[rows], y) for y in (c, batch.data, q))
        b = 1 + (strength - 1) * (log_density(x[rows], batch.data) - log_density(x[rows], q)).exp()
        b = b.reshape(-1, *(1,) * manifold.point_ndim)
        expected = (s_c + (b - 1) * (s_c - s_p) - s_q) / b
        torch.testing.assert_close(found[rows], expected, rtol=1e-7, atol=1e-7)


def test_guided_samples_rest_at_the_extrapolated_density():
    """p_c = (3 A + B) / 4 and p = (A + B) / 2, so 2 p_c - p = A: model A does not drift at strength 2."""
    a, b = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    data, labels = torch.cat([a, a, a, b, a, b, b, b]), torch.arange(2).repeat_interleave(20)
    ones = torch.zeros(5, 1, dtype=torch.float64)
    batch = Batch(a + 0.1, data, a, data_condition=labels)
    batch = replace(
        batch, condition=torch.cat([ones, 2 + ones], 1), model_condition=torch.cat([ones, 2 + ones], 1)
    )
    field = ConditionalField(KernelField(Euclidean(), Gaussian, Lengthscales((0.7,))))
    assert float(field(batch).field.abs().max()) < 1e-12
    assert float(field(replace(batch, model=b)).field.abs().max()) > 0.1


def test_guided_fields_obey_the_laws(sphere_cloud):
    condition, others = (with_strength(labels, [1.0, 1.5, 4.0]) for labels in (LABELS, MORE))
    field = ConditionalField(plain(Sphere()))
    check_field(field, batch_of(sphere_cloud, condition, others), antisymmetric=False)


def test_a_class_without_data_and_missing_labels_are_refused(sphere_cloud):
    field, batch = ConditionalField(plain(Euclidean())), batch_of(sphere_cloud)
    with pytest.raises(ValueError, match="no data of class 2"):
        field(replace(batch, data_condition=torch.arange(12) % 2))
    with pytest.raises(ValueError, match="no labels"):
        field(replace(batch, data_condition=None))
    with pytest.raises(ValueError, match="no conditions"):
        field(replace(batch, condition=None))
    with pytest.raises(ValueError, match=r"at least 1, got 0\.5"):
        field(batch_of(sphere_cloud, with_strength(LABELS, [0.5] * 3), with_strength(MORE, [0.5] * 3)))
    with pytest.raises(ValueError, match="12 data need as many labels"):
        LabelledField(field, batch.data, torch.zeros(3, dtype=torch.long))
    with pytest.raises(ValueError, match="at least 1, got 3 and 0"):
        MemoryBank(field, batch.data, num_classes=3, capacity=0)
    with pytest.raises(ValueError, match="must be at least 1"):
        class_conditions(3, 0)


def test_the_bank_holds_the_latest_of_each_class(sphere_cloud):
    table, labels = sphere_cloud(40, 3), torch.randint(3, (40,), generator=torch.Generator().manual_seed(0))
    bank = MemoryBank(ConditionalField(plain(Euclidean())), table, num_classes=3, capacity=4)
    field = LabelledField(bank, table, labels)
    batch = replace(batch_of(sphere_cloud), data_condition=None)
    seen: list[int] = []
    for indices in torch.arange(40).split(10):
        batch = replace(batch, data=indices)
        kept = [i for label in range(3) for i in [j for j in seen if labels[j] == label][-4:]]
        expected = replace(batch, data=torch.cat([indices, torch.tensor(kept, dtype=torch.long)]))
        alone = LabelledField(ConditionalField(plain(Euclidean())), table, labels)
        torch.testing.assert_close(field(batch), alone(expected))
        observe(field, batch)
        seen += indices.tolist()
    check_field(field, batch)
    assert bank.filled.tolist() == [4, 4, 4]


def test_state_is_found_behind_fields_without_state(sphere_cloud):
    bank = MemoryBank(plain(Euclidean()), sphere_cloud(4, 0), num_classes=3, capacity=4)
    outer = LabelledField(ConditionalField(bank), sphere_cloud(4, 0), torch.zeros(4, dtype=torch.long))
    assert modules_of(outer) == [outer, bank]
    inner = LabelledField(bank, sphere_cloud(4, 0), torch.zeros(4, dtype=torch.long))
    assert modules_of(inner) == [inner]


def test_conditions_come_in_runs_and_strengths_by_a_power_law():
    labels = class_conditions(10, 5)(100, torch.Generator().manual_seed(0))
    assert labels.shape == (100,)
    assert (labels.diff() != 0).sum() == 4
    assert len(set(labels.tolist())) == 5
    rows = class_conditions(3, 8, largest=4.0)(80, torch.Generator().manual_seed(0))
    assert rows.unique(dim=0).shape == (8, 2)
    assert bool(((rows[:, 1] >= 1) & (rows[:, 1] <= 4)).all())
    u = torch.linspace(0, 1, 100_001, dtype=torch.float64)
    for exponent in (0.0, 1.0, 3.0):
        x = power_law(u, 4.0, exponent)
        density = x**-exponent
        mass = torch.trapezoid(density, x)  # the distribution function, by quadrature
        half = torch.trapezoid(density[:50_001], x[:50_001]) / mass
        assert float(half) == pytest.approx(0.5, abs=1e-4)


def test_matched_data_have_the_conditions_of_the_samples_in_their_proportions():
    labels = torch.tensor([0] * 50 + [1] * 5 + [2] * 45)
    random = torch.Generator().manual_seed(0)
    for conditions in (labels, torch.stack([labels, -labels], dim=1)):
        sample = Matched(torch.arange(100), conditions)
        own = conditions[[0] * 6 + [51] * 2]
        drawn = sample.matching(own, 400, random)
        assert labels[drawn].tolist() == [0] * 300 + [1] * 100
        assert len(drawn[:300].unique()) > 45  # of 50
        assert drawn[300:].unique().tolist() == [50, 51, 52, 53, 54]
    assert len(sample(60, random).unique()) == 60
    assert sample(200, random).tolist() == list(range(100))
    with pytest.raises(ValueError, match="a condition that no data have"):
        sample.matching(torch.tensor([[3, -3]]), 4, random)
    with pytest.raises(ValueError, match="need as many conditions"):
        Matched(torch.arange(3), labels)


def test_conditions_are_drawn_in_runs():
    sample, random = in_runs(torch.arange(10), 3), torch.Generator().manual_seed(0)
    rows = sample(29, random)
    assert rows.tolist() == rows[::3].repeat_interleave(3)[:29].tolist()
    assert rows.unique().tolist() == list(range(10))
    many = sample(3_000, random)
    assert bool((many.bincount() > 200).all())
    assert len(many) == 3_000
    with pytest.raises(ValueError, match="at least 1"):
        in_runs(rows, 0)


class Shifted(nn.Module):
    """x = z / 2 + B onehot(label)."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Linear(3, 2, bias=False)
        nn.init.zeros_(self.shift.weight)

    def forward(self, z: Tensor, c: Tensor) -> Tensor:
        return z / 2 + self.shift(nn.functional.one_hot(c, 3).to(z))

    def latent(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.randn(n, 2, generator=generator)


@pytest.mark.parametrize(
    "sampler", [lambda labels: resample(torch.arange(60)), lambda labels: Matched(torch.arange(60), labels)]
)
def test_a_generator_learns_every_class(tmp_path, sampler):
    centres, labels = torch.tensor([[2.0, 0.0], [-1.0, 1.0], [0.0, -2.0]]), torch.arange(60) % 3
    data = centres[labels] + 0.5 * torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
    bank = MemoryBank(ConditionalField(plain(Euclidean())), data, num_classes=3, capacity=8)
    field = LabelledField(bank, data, labels)
    config = TrainConfig.of(
        steps=50, batch_size=48, num_positives=24, lr=0.1, warmup_steps=0, ema_decay=0.9, step_size=0.3
    )
    conditions = class_conditions(3, 3)
    trained = train(Shifted(), field, sampler(labels), config, tmp_path, sample_condition=conditions)
    means = torch.stack([data[labels == label].mean(0) for label in range(3)])
    torch.testing.assert_close(trained.shift.weight.detach().T, means, atol=0.3, rtol=0)
