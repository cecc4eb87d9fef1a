"""Couplings: against dense matrices, lawful as fields, and their biases on particles."""

import pytest
import torch
from drift_core import (
    BalancedField,
    Batch,
    Euclidean,
    KernelField,
    Laplace,
    Sinkhorn,
    Sphere,
    geometric_mean,
    rows_only,
)
from drift_core.flow import particle_flow
from drift_core.lengthscale import Lengthscales
from drift_core.testing import check_field
from torch import Tensor

COUPLINGS = {"rows": rows_only, "geometric-mean": geometric_mean, "sinkhorn": Sinkhorn(4)}


def dense(name: str, log_k: Tensor) -> Tensor:
    """Weights of a row, which sum to 1, by matrices."""
    k = log_k.exp()
    if name == "rows":
        p = k
    elif name == "geometric-mean":
        p = (k / k.sum(1, keepdim=True) * k / k.sum(0)).sqrt()
    else:
        p = k
        for _ in range(4):
            p = p / p.sum(1, keepdim=True)
            p = p / p.sum(0)
    return p / p.sum(1, keepdim=True)


@pytest.mark.parametrize("name", COUPLINGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_are_those_of_the_matrices(name, dtype):
    generator = torch.Generator().manual_seed(0)
    x, data = (torch.randn(n, 3, generator=generator, dtype=torch.float64) for n in (6, 9))
    field = KernelField(Euclidean(), Laplace, Lengthscales((0.5,)), "displacement", coupling=COUPLINGS[name])
    found = field(Batch(x.to(dtype), data.to(dtype)))
    expected = dense(name, -torch.cdist(x, data) / 0.5) @ data - x
    torch.testing.assert_close(found.attraction.double(), expected, rtol=1e-4, atol=1e-5)
    others = (-torch.cdist(x, x) / 0.5).fill_diagonal_(-torch.inf)
    expected = dense(name, others) @ x - x
    torch.testing.assert_close(found.repulsion.double(), expected, rtol=1e-4, atol=1e-5)


def test_fields_with_couplings_obey_the_laws(manifold, cloud):
    field = KernelField(manifold, Laplace, Lengthscales((0.4, 1.2)), coupling=geometric_mean)
    samples = torch.cat([cloud(6, 0), cloud(4, 2)])
    check_field(field, Batch(cloud(6, 0), cloud(9, 1), samples, torch.arange(6)))


def test_two_sided_fields_obey_the_laws(sphere_cloud):
    field = KernelField(Sphere(), Laplace, Lengthscales((0.4,)), coupling=Sinkhorn(2))
    samples = torch.cat([sphere_cloud(6, 0), sphere_cloud(4, 2)])
    check_field(field, Batch(sphere_cloud(6, 0), sphere_cloud(9, 1), samples, torch.arange(6)))
    weight = torch.linspace(-1, 1, 9)
    check_field(field, Batch(sphere_cloud(6, 0), sphere_cloud(9, 1), data_log_weight=weight))


def test_log_weights_of_references_count_them():
    """A datum of weight 3 is three data, for rows and for two-sided plans."""
    generator = torch.Generator().manual_seed(0)
    x, data = (torch.randn(n, 2, generator=generator, dtype=torch.float64) for n in (6, 4))
    counts = torch.tensor([1, 3, 2, 1])
    for coupling in COUPLINGS.values():
        field = KernelField(Euclidean(), Laplace, Lengthscales((0.5,)), coupling=coupling)
        found = field(Batch(x, data, data_log_weight=counts.log())).attraction
        expected = field(Batch(x, data.repeat_interleave(counts, 0))).attraction
        torch.testing.assert_close(found, expected)


def test_a_coupling_needs_one_weight_a_reference_and_an_iteration():
    field = KernelField(Euclidean(), Laplace, Lengthscales((0.5,)), coupling=geometric_mean)
    with pytest.raises(ValueError, match="one log-weight a reference"):
        field(Batch(torch.eye(3), torch.ones(4, 3), data_log_weight=torch.eye(3, 4)))
    with pytest.raises(ValueError, match="at least one iteration"):
        Sinkhorn(0)


def modes(left: int, right: int, generator: torch.Generator) -> Tensor:
    """Points of two modes, 4 apart."""
    centre = torch.tensor([0.0] * left + [4.0] * right)
    noise = 0.3 * torch.randn(left + right, 2, generator=generator)
    return noise + torch.stack([centre, torch.zeros_like(centre)], dim=1)


def test_only_two_sided_couplings_move_mass_between_far_modes():
    """A quarter of the data, and half of the particles at the start, are in one of two modes 8 l apart."""
    generator = torch.Generator().manual_seed(0)
    data, start = modes(16, 48, generator), modes(16, 16, generator)
    share = {}
    for name, coupling in {**COUPLINGS, "sinkhorn": Sinkhorn(10)}.items():
        field = KernelField(Euclidean(), Laplace, Lengthscales((0.5,)), coupling=coupling)
        x = particle_flow(field, start, data, steps=50, step_size=0.2).x
        share[name] = float((x[:, 0] < 2).double().mean())
    assert share["rows"] > 0.4
    assert share["geometric-mean"] > 0.4
    assert share["sinkhorn"] < 0.3, share


def test_learned_weights_move_mass_between_far_modes():
    """As above, by the semi-dual, whose weights are learned first: its field must see them."""
    generator = torch.Generator().manual_seed(0)
    data, x = modes(16, 48, generator), modes(16, 16, generator)
    field = BalancedField(KernelField(Euclidean(), Laplace, Lengthscales((0.5,))), data)
    for step in range(100):
        batch = Batch(x, torch.arange(64), x, torch.arange(32), step, step / 200)
        x = x + 0.2 * field(batch).field
        field.observe(batch)
    assert float((x[:, 0] < 2).double().mean()) < 0.3
