"""Drift in the features of a frozen encoder: against autograd of log-densities of features."""

import torch
from drift_core import (
    AdaptiveField,
    Batch,
    Euclidean,
    KernelField,
    Laplace,
    LocationField,
    NormalizedField,
    PullbackField,
    Sphere,
    SumField,
    mean_distance,
)
from drift_core.field import diagnostics
from drift_core.lengthscale import Lengthscales
from drift_core.testing import check_field
from torch import Tensor, nn


class Encoder(nn.Module):
    """Feature maps [n, 4, 5] of images of 4 x 4 pixels, points [n, 16], and features [n, 3] of all of it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution, self.last = nn.Conv2d(1, 5, 2, stride=2), nn.Linear(20, 3)
        self.double()

    def maps(self, x: Tensor) -> Tensor:
        return self.convolution(x.reshape(-1, 1, 4, 4)).tanh().flatten(2).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.maps(x).flatten(1))


def images(n: int, seed: int) -> Tensor:
    return torch.randn(n, 16, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def plain(scale: float = 0.5) -> KernelField:
    return KernelField(Euclidean(), Laplace, Lengthscales((scale,)))


def batch() -> Batch:
    x, more = images(5, 0), images(3, 2)
    return Batch(x, images(7, 1), torch.cat([x, more]), torch.arange(5))


def log_density(features: Tensor, references: Tensor) -> Tensor:
    """Total log-sum-exp of the Laplace kernel, each location by itself where there are any."""
    pairs = (features[:, None] - references[None]).square().sum(-1).sqrt()
    return (-pairs / 0.5).logsumexp(1).sum()


def test_layers_and_locations_equal_autograd_of_their_log_densities():
    encoder, given = Encoder(), batch()
    x = given.x + 0.1  # off the samples that repel, where distances have no gradient
    given = Batch(x, given.data, given.model)
    layers = {
        encoder: plain(),
        encoder.maps: LocationField(plain()),
    }
    field = SumField(
        [PullbackField(layer, inner, Euclidean()) for layer, inner in layers.items()], [1.0, 0.5]
    )
    at = x.clone().requires_grad_()
    total = sum(
        weight * (log_density(layer(at), layer(given.data)) - log_density(layer(at), layer(given.model)))
        for layer, weight in zip(layers, (1.0, 0.5), strict=True)
    )
    (expected,) = torch.autograd.grad(total, at)
    torch.testing.assert_close(field(given).field, expected, rtol=1e-9, atol=1e-9)
    assert all(weight.grad is None for weight in encoder.parameters())


def test_fields_in_features_obey_the_laws():
    encoder = Encoder()
    unit = NormalizedField(PullbackField(encoder, AdaptiveField(plain(), mean_distance), Euclidean()))
    local = PullbackField(encoder.maps, LocationField(AdaptiveField(plain(), mean_distance)), Euclidean())
    field = SumField([unit, local], [1.0, 0.5])
    check_field(field, batch())
    assert diagnostics(field, batch())["lengthscale"] > 0


def test_features_that_are_larger_have_the_same_field_in_units_of_their_distance():
    encoder, given = Encoder(), batch()
    small, large = (
        PullbackField(lambda x, c=c: c * encoder(x), AdaptiveField(plain(), mean_distance), Euclidean())
        for c in (1, 50)
    )
    torch.testing.assert_close(small(given).field, large(given).field)


def test_locations_of_points_themselves_are_positions_of_a_product(sphere_cloud):
    x, data = (torch.stack([sphere_cloud(n, seed) for seed in (s, s + 1)], 1) for n, s in ((5, 0), (7, 2)))
    inner = KernelField(Sphere(), Laplace, Lengthscales((0.5,)))
    field = LocationField(inner)
    check_field(field, Batch(x, data))
    found = field(Batch(x, data)).field
    for at in range(2):
        torch.testing.assert_close(found[:, at], inner(Batch(x[:, at], data[:, at])).field)
