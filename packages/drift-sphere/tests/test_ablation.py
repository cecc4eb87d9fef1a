"""Every row of the ablation differs from our default in what it names, and in nothing else."""

import math

import pytest
import torch
from drift_core import BalancedField, Batch, KernelField, smoothed_score, train
from drift_core.runs.domain import untrained
from drift_sphere.ablation import (
    BALANCED,
    BATCHES,
    COMPANION,
    DEFAULT,
    DISPLACEMENT,
    MIXTURE,
    ONE,
    TRAINING_POINTS,
    ablation,
    mixture,
)
from drift_sphere.data import Points

ALLOWED = {
    "lengthscale": {"lengthscale"},
    "kernel": {"kernel", "nu"},
    "direction": {"direction", "kernel", "nu", "lengthscale"},
    "data": {"neighbors", "num_positives"},
}
"""Settings that the rows of a group may change."""


def cells(budget="quick"):
    return {row: cell for (row, _), cell in ablation(budget).cells.items()}


def cloud(n: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    points = torch.randn(n, 3, generator=torch.Generator().manual_seed(n), dtype=dtype)
    return torch.nn.functional.normalize(points, dim=1)


def field_of(row: str, n: int = 600):
    """Field of a row, and of batches where it is wrapped."""
    cell, points = cells()[row], cloud(n)
    field = cell.domain.field(cell.config, Points(points, points, points))
    return field, getattr(field, "field", field)


@pytest.mark.parametrize("budget", ["quick", "full"])
def test_rows_change_what_they_name(budget):
    found = cells(budget)
    default = found[DEFAULT].config.flat()
    groups = [row.partition(":")[0] for row in found if row != DEFAULT]
    assert list(dict.fromkeys(groups)) == list(ALLOWED)
    assert groups == sorted(groups, key=list(ALLOWED).index)
    for row, cell in found.items():
        changed = {name for name, value in cell.config.flat().items() if value != default[name]}
        by_hand = row in (DEFAULT, ONE, MIXTURE)
        assert bool(changed) != by_hand, row
        assert changed <= ALLOWED.get(row.partition(":")[0], set()), row
        if " to 0." in row:
            assert cell.config.kernel.scales == f"2:{row.rpartition(' to ')[2]}"
        for trial in cell.tuning_trials().values():
            assert trial.config.kernel.lengthscale != default["lengthscale"]
            assert trial.config.optimizer.steps <= default["steps"]
    assert [row for row, cell in found.items() if cell.candidates] == [ONE]


@pytest.mark.parametrize("progress", [0.0, 0.3, 1.0])
def test_the_companion_has_the_numerator_of_the_displacement(progress):
    (_, displacement), (_, companion) = field_of(DISPLACEMENT), field_of(COMPANION)
    assert (displacement.direction, companion.direction) == ("displacement", "gradient")
    x, y = cloud(20, torch.float64), cloud(21, torch.float64)
    y[:20] = torch.nn.functional.normalize(y[:20] * 0.01 + x, dim=1)  # near ones, for short lengthscales
    parts = []
    for field in (displacement, companion):
        (scale,) = field.lengthscales.at(progress)
        score = smoothed_score(field.manifold, field.kernel(scale), x, y, direction=field.direction)
        parts.append((scale, score.log_density[:, None] + score.gradient.abs().log(), score.gradient.sign()))
    (scale, log_numerator, sign), (longer, log_gradient, same_sign) = parts
    assert longer == pytest.approx(math.sqrt(3) * scale, rel=1e-7)
    torch.testing.assert_close(log_numerator, log_gradient + 2 * math.log(scale), rtol=1e-5, atol=1e-5)
    assert torch.equal(sign, same_sign)


def test_the_mixture_is_annealed_as_the_default():
    (mixed, batches), (_, default) = field_of(MIXTURE), field_of(DEFAULT)
    assert type(mixed) is type(field_of(DEFAULT)[0])
    assert batches.lengthscales == default.lengthscales
    r = torch.linspace(0, 3, 50, dtype=torch.float64)
    for progress in (0.0, 0.4):
        (scale,) = batches.lengthscales.at(progress)
        expected = ((-r / scale).exp() + (-r / (4 * scale)).exp()) / 2
        torch.testing.assert_close(batches.kernel(scale).log(r).exp(), expected)
    assert batches.kernel is mixture


def test_all_training_points_attract_at_every_step(earth_dir):
    cell = cells()["data: all training points at every step"]
    data = cell.domain.load(cell.config.replace(data_dir=earth_dir))
    assert cell.config.batch.num_positives == len(data.train) == TRAINING_POINTS
    assert isinstance(cell.domain.field(cell.config, data), KernelField)
    drawn = cell.domain.data_sampler(cell.config, data)(TRAINING_POINTS, torch.Generator())
    assert torch.equal(drawn, data.train)


def test_balanced_data_start_as_batches_and_weigh_less_where_samples_crowd(tmp_path):
    cell = cells()[BALANCED]
    crowded, rare = cloud(90) * 0.05 + torch.eye(3)[0], cloud(10) * 0.05 - torch.eye(3)[0]
    points = torch.nn.functional.normalize(torch.cat([crowded, rare]), dim=1)
    data = Points(points, points, points)
    field, plain = cell.domain.field(cell.config, data), field_of(BATCHES)[0]
    sampler = cell.domain.data_sampler(cell.config, data)
    index = sampler(40, torch.Generator().manual_seed(0))
    x = cloud(30)
    assert isinstance(field, BalancedField)
    torch.testing.assert_close(
        field(Batch(x, index, progress=0.3)).field, plain(Batch(x, points[index], progress=0.3)).field
    )
    config = cell.config.replace(steps=30, batch_size=64, warmup_steps=0, codebook_size=16)
    trained = train(untrained(cell.domain, config, data), field, sampler, config, tmp_path)
    assert all(bool(p.isfinite().all()) for p in trained.parameters())
    assert float(field.potential[90:].mean()) > float(field.potential[:90].mean()) + 0.1
