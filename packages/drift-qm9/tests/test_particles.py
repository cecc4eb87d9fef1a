"""Particles that follow the published fields without a network, on toy molecules."""

import pytest
import torch
from drift_core import Euclidean, KernelField, Laplace, Power
from drift_core.flow import particle_flow
from drift_core.lengthscale import parse_lengthscales
from drift_core.training.samplers import resample
from drift_qm9 import MoleculeGenerator, to_smiles
from drift_qm9.metrics import bigrams, lengths, quality, total_variation, wasserstein
from drift_qm9.tokens import VOCABULARY
from drift_simplex import CategoricalField, decode
from torch import Generator, Tensor
from torch.nn.functional import one_hot

LETTERS, STEPS = len(VOCABULARY), 100
SCALES = parse_lengthscales("0.5:0.15")


def particles(toy, geometry: str) -> Tensor:
    """Samples of an untrained generator."""
    torch.manual_seed(0)
    network = MoleculeGenerator(length=toy.train.shape[1], geometry=geometry, output="softmax")
    return network(network.latent(128, Generator().manual_seed(0))).detach()


def test_the_spherical_gradient_brings_particles_to_molecules(toy):
    draw, field = resample(toy.train), CategoricalField(LETTERS, Laplace, SCALES)
    flow = particle_flow(
        field,
        particles(toy, "spherical"),
        lambda _, generator: draw(1_024, generator),  # tokens, which must stay integers
        steps=STEPS,
        step_size=0.3,
        record=(0, STEPS),
    )
    start, end = (to_smiles(decode(x)) for x in flow.records.values())
    real = to_smiles(toy.val)
    assert quality(start, frozenset())["valid"] < 0.1
    assert quality(end, frozenset())["unique_of_all"] > 0.5
    for count, distance in ((bigrams, total_variation), (lengths, wasserstein)):
        before, after = (distance(count(strings), count(real)) for strings in (start, end))
        assert after < before / 3


@pytest.mark.parametrize("direction", ["displacement", "gradient"])
def test_displacements_carry_particles_out_of_the_simplex(toy, direction):
    """The reason is in drift-core's test of two particles."""
    vertices = one_hot(toy.train[:512], LETTERS).float()
    field = KernelField(Power(Euclidean()), Laplace, SCALES, direction)
    h = 0.3 if direction == "displacement" else 0.1
    x = particle_flow(field, particles(toy, "euclidean"), vertices, steps=STEPS, step_size=h).x
    length = float(x.norm(dim=-1).mean())
    assert length > 3 if direction == "displacement" else length < 1.3
