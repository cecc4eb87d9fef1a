"""The original method's field: against loops written from its pseudo-code, and as a coupling."""

import math

import pytest
import torch
from drift_core import Batch, Euclidean, KernelField, Laplace, Sphere, geometric_mean
from drift_core.lengthscale import Lengthscales
from drift_core.original import OriginalField
from drift_core.testing import check_field
from torch import Tensor


def reference(
    x: Tensor, data: Tensor, more: Tensor, weights: list[float], temperatures: list[float]
) -> Tensor:
    """Algorithm 2 of Deng et al. 2026 with the constants of the public code, by loops.

    Generated samples x repel one another, and are repelled by `more`; weights are those of x, more and data.
    """
    n, d = x.shape
    targets = [*x.tolist(), *more.tolist(), *data.tolist()]
    dist = [[math.dist(a, b) for b in targets] for a in x.tolist()]
    weighted = sum(w * r for row in dist for w, r in zip(weights, row, strict=True)) / (n * len(targets))
    scale = weighted / (sum(weights) / len(weights))
    scaled = [[c / (scale / math.sqrt(d)) for c in y] for y in targets]
    total = torch.zeros(n, d, dtype=torch.float64)
    for temperature in temperatures:
        logit = [
            [-(r / scale + 100 * (i == j)) / temperature for j, r in enumerate(row)]
            for i, row in enumerate(dist)
        ]
        over_row = [sum(map(math.exp, row)) for row in logit]
        over_column = [sum(math.exp(row[j]) for row in logit) for j in range(len(targets))]
        force = torch.zeros(n, d, dtype=torch.float64)
        for i in range(n):
            affinity = [
                w * math.sqrt(max(1e-6, math.exp(a) / over_row[i] * math.exp(a) / over_column[j]))
                for j, (a, w) in enumerate(zip(logit[i], weights, strict=True))
            ]
            split = n + len(more)
            negative, positive = sum(affinity[:split]), sum(affinity[split:])
            for j, y in enumerate(scaled):
                coefficient = -affinity[j] * positive if j < split else affinity[j] * negative
                force[i] += coefficient * (
                    torch.tensor(y, dtype=torch.float64) - torch.tensor(scaled[i]).double()
                )
        total += force / max(1e-4, math.sqrt(float(force.square().mean())))
    return total * scale / math.sqrt(d)


def cloud(n: int, seed: int, d: int = 3) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_is_what_the_pseudo_code_computes(dtype):
    x, data, more = cloud(5, 0), 1 + cloud(7, 1), cloud(3, 2)
    none = cloud(0, 0)
    plain = OriginalField(Euclidean())(Batch(x.to(dtype), data.to(dtype)))
    expected = reference(x, data, none, [1.0] * 12, [0.02, 0.05, 0.2])
    torch.testing.assert_close(plain.field.double(), expected, rtol=1e-4, atol=1e-4)
    weight = torch.tensor([1.0] * 5 + [0.3, 2.0, 0.7], dtype=dtype)
    guided = Batch(
        x.to(dtype),
        data.to(dtype),
        torch.cat([x, more]).to(dtype),
        torch.arange(5),
        model_log_weight=weight.log(),
        num_generated=5,
    )
    expected = reference(x, data, more, weight.tolist() + [1.0] * 7, [0.3])
    found = OriginalField(Euclidean(), (0.3,))(guided).field
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)


def test_it_obeys_the_laws(sphere_cloud):
    check_field(OriginalField(Sphere()), Batch(sphere_cloud(6, 0), sphere_cloud(9, 1)))


def test_at_one_temperature_it_points_along_the_displacement_with_the_geometric_mean():
    """Above the least affinity a joint softmax changes the lengths of the vectors alone."""
    x, data = cloud(6, 0), 0.5 + cloud(8, 1)
    batch = Batch(x, data)
    pairs = torch.cdist(x, torch.cat([x, data]))
    scale = 0.5 * float(pairs.mean())
    plain = KernelField(Euclidean(), Laplace, Lengthscales((scale,)), "displacement", coupling=geometric_mean)
    found, direction = OriginalField(Euclidean(), (0.5,))(batch).field, plain(batch).field
    cosine = torch.cosine_similarity(found, direction, dim=1)
    # The pair of a sample with itself adds the least affinity to the sums of its row and of its column.
    assert float(cosine.min()) > 0.999
    lengths = found.norm(dim=1) / direction.norm(dim=1)
    assert float(lengths.max() / lengths.min()) > 1.01
