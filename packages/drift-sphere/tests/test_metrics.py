import numpy as np
import ot
import pytest
import torch
from drift_sphere import latlon_to_sphere, mmd, mmd2_unbiased, nn_accuracy, sinkhorn, toy
from drift_sphere.metrics import REGULARISATION, transport_cost
from torch import Generator, tensor


@pytest.fixture
def clouds(uniform, generator):
    return toy(60, generator).float(), uniform(47, generator)


def angles(x, y):
    """Geodesic distances in float64 from inner products."""
    x, y = (a.double().numpy() for a in (x, y))
    x, y = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (x, y))
    return np.arccos(np.clip(x @ y.T, -1, 1))


def brute_mmd2(x, y, unbiased):
    xx, xy, yy = (np.exp(-(angles(a, b) ** 2)) for a, b in ((x, x), (x, y), (y, y)))
    if unbiased:
        xx, yy = (k[~np.eye(len(k), dtype=bool)] for k in (xx, yy))
    return xx.mean() - 2 * xy.mean() + yy.mean()


def test_mmd_is_the_mean_over_pairs(clouds):
    assert mmd(*clouds) == pytest.approx(brute_mmd2(*clouds, unbiased=False) ** 0.5, abs=1e-6)
    assert mmd2_unbiased(*clouds) == pytest.approx(brute_mmd2(*clouds, unbiased=True), abs=1e-6)


def test_mmd_over_several_chunks(uniform, generator):
    x, y = uniform(2500, generator), uniform(1100, generator)
    assert mmd(x, y) == pytest.approx(brute_mmd2(x, y, unbiased=False) ** 0.5, abs=1e-5)
    assert mmd2_unbiased(x, y) == pytest.approx(brute_mmd2(x, y, unbiased=True), abs=1e-6)


def test_mmd_of_two_points_is_in_closed_form():
    x, y = latlon_to_sphere(tensor([0.0, 60.0]), tensor([10.0, 10.0]))[:, None]
    assert mmd(x, y) == pytest.approx((2 - 2 * np.exp(-((np.pi / 3) ** 2))) ** 0.5)


def test_equal_sets_are_at_distance_zero(clouds):
    x, _ = clouds
    shuffled = x[torch.randperm(len(x))]
    assert mmd(x, shuffled) == pytest.approx(0, abs=3e-4)  # the root of rounding
    assert sinkhorn(x, shuffled) == pytest.approx(0, abs=1e-5)


def test_the_unbiased_statistic_is_unbiased(uniform, generator):
    values = [mmd2_unbiased(uniform(50, generator), uniform(20, generator)) for _ in range(300)]
    assert abs(np.mean(values)) < 4 * np.std(values) / 300**0.5


def test_transport_cost_lies_between_exact_transport_and_its_entropic_bound(clouds):
    x, y = clouds
    a, b = np.full(len(x), 1 / len(x)), np.full(len(y), 1 / len(y))
    exact = ot.emd2(a, b, angles(x, y))
    plan = ot.emd(a, b, angles(x, y))
    used = plan[plan > 0]
    divergence = np.sum(used * np.log(used)) + np.log(len(x) * len(y))
    assert exact < transport_cost(x, y) < exact + REGULARISATION * divergence


def test_sinkhorn_is_the_converged_divergence_of_pot(clouds):
    def cost(x, y):
        n, m = len(x), len(y)
        a, b, distance = np.full(n, 1 / n), np.full(m, 1 / m), angles(x, y)
        plan = ot.sinkhorn(a, b, distance, REGULARISATION, numItermax=20_000, stopThr=1e-6)
        return np.sum(plan * (distance + REGULARISATION * np.log(plan * n * m)))

    x, y = clouds
    expected = cost(x, y) - (cost(x, x) + cost(y, y)) / 2
    assert sinkhorn(x, y) == pytest.approx(expected, abs=1e-4)
    assert sinkhorn(x, y, transport_cost(y, y)) == sinkhorn(x, y)


def test_sinkhorn_of_two_points_is_their_distance():
    x, y = latlon_to_sphere(tensor([0.0, 0.0]), tensor([-30.0, 30.0]))[:, None]
    assert sinkhorn(x, y) == pytest.approx(np.pi / 3)


def test_unconverged_sinkhorn_warns(clouds):
    with pytest.warns(RuntimeWarning, match="Sinkhorn stopped at an error"):
        transport_cost(*clouds, tolerance=1e-30)


def brute_nn_accuracy(x, y):
    points, kind = torch.cat((x, y)), np.repeat([0, 1], [len(x), len(y)])
    distance = np.linalg.norm(points[:, None].double().numpy() - points[None].double().numpy(), axis=-1)
    np.fill_diagonal(distance, np.inf)
    nearest = [np.flatnonzero(row <= row.min() * (1 + 1e-9)) for row in distance]
    return np.mean([np.mean(kind[others] == kind[i]) for i, others in enumerate(nearest)])


def test_nn_accuracy_is_that_of_every_point_left_out(clouds):
    x, y = clouds[0][:47], clouds[1]
    assert nn_accuracy(x, y) == pytest.approx(brute_nn_accuracy(x, y))


def test_nn_accuracy_shares_ties_whatever_the_order(generator, uniform):
    places = uniform(30, generator)
    x, y = (places[torch.randint(30, (80,), generator=generator)] for _ in range(2))
    value = nn_accuracy(x, y)
    assert value == pytest.approx(brute_nn_accuracy(x, y))
    assert nn_accuracy(x[torch.randperm(80)], y.flip(0)) == pytest.approx(value)
    assert nn_accuracy(y, x) == pytest.approx(value)


def test_nn_accuracy_at_its_extremes(uniform, generator):
    x = uniform(50, generator)
    north, south = (x * tensor([1.0, 1.0, 0.0]) + tensor([0.0, 0.0, h]) for h in (9.0, -9.0))
    apart = [torch.nn.functional.normalize(side, dim=-1) for side in (north, south)]
    assert nn_accuracy(*apart) == 1
    assert nn_accuracy(x, x) == 0
    one_place = x[:1].expand(50, 3)
    assert nn_accuracy(one_place, one_place) == pytest.approx(49 / 99)
    with pytest.raises(ValueError, match="equally many points, not 50 and 49"):
        nn_accuracy(x, x[1:])


def test_nn_accuracy_of_one_law_is_a_half(uniform):
    generator = Generator().manual_seed(1)
    values = [nn_accuracy(uniform(300, generator), uniform(300, generator)) for _ in range(10)]
    assert np.mean(values) == pytest.approx(0.5, abs=0.03)


def test_sinkhorn_converges_where_mass_has_to_change_sides(uniform, generator):
    """Over-relaxed iterations alone would not settle between tight clusters of unequal weights."""
    poles = torch.nn.functional.normalize(tensor([[0.0, 0.0, 1.0], [0.0, 0.5, 1.0]]), dim=-1)
    x, y = (
        torch.nn.functional.normalize(
            poles.repeat_interleave(tensor(counts), 0) + 0.02 * uniform(150, generator), dim=-1
        )
        for counts in ([50, 100], [100, 50])
    )
    a, distance = np.full(150, 1 / 150), angles(x, y)
    plan = ot.sinkhorn(a, a, distance, REGULARISATION, numItermax=20_000, stopThr=1e-9)
    expected = np.sum(plan * (distance + REGULARISATION * np.log(plan * 150**2)))
    assert transport_cost(x, y) == pytest.approx(expected, abs=1e-4)
