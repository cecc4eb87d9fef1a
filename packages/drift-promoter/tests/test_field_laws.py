"""The law suite of drift fields on those of promoters."""

import numpy as np
import pytest
import torch
from drift_core import Batch, Euclidean, KernelField, Laplace, Power
from drift_core.lengthscale import parse_lengthscales
from drift_core.testing import check_field
from drift_promoter.clusters import fit_clusters
from drift_promoter.crop_field import CropField
from drift_promoter.crops import Crops, crop_indices
from drift_promoter.data import Windows
from drift_promoter.field import SequenceField
from drift_promoter.kmer_field import KmerField
from drift_promoter.similarity import Similarity
from drift_simplex import CategoricalField

LENGTH = 16
SCALES = parse_lengthscales("2:0.7")
LETTERS = CategoricalField(4, Laplace, SCALES, product=True)
INNER = {
    "spherical": CategoricalField(4, Laplace, SCALES),
    "euclidean": KernelField(Power(Euclidean()), Laplace, SCALES),
}
ALIKE = Similarity(Laplace(0.8))


@pytest.fixture
def data() -> Windows:
    rng, n, width = np.random.default_rng(0), 9, LENGTH + 6
    bases = rng.integers(4, size=(n, width), dtype=np.uint8)
    signal = rng.exponential(size=(n, width, 2)).astype(np.float16)
    return Windows(bases, signal, ["1"] * n, np.arange(n) * 100, ["+-"[i % 2] for i in range(n)], 3)


def batches(data: Windows, width: int, conditional: bool) -> list[Batch]:
    """Against a pool with other samples in it, and against the samples themselves."""
    random = torch.Generator().manual_seed(1)
    pool = (2 * torch.randn(7, LENGTH, 4, generator=random, dtype=torch.float64)).softmax(-1).sqrt()
    c = torch.rand(7, LENGTH, 2, generator=random, dtype=torch.float64) if conditional else None
    own = torch.tensor([2, 5, 6, 0])
    indices = crop_indices(data, width)(12, random)
    here = None if c is None else c[own]
    pooled = Batch(pool[own], indices, pool, own, 3, 0.4, here, c)
    return [pooled, Batch(pool[own], indices, step=3, progress=0.4, condition=here)]


# Data are indices of windows that a field owns: test_field.py swaps the windows themselves.
@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("geometry", ["spherical", "euclidean"])
def test_fields_of_whole_sequences(geometry, conditional, data):
    field = SequenceField(INNER[geometry], data, ALIKE if conditional else None)
    for batch in batches(data, LENGTH, conditional):
        check_field(field, batch, antisymmetric=False)


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("decoding", ["argmax", "sampled"])
@pytest.mark.parametrize("most", [16_384, 10], ids=["all", "thinned"])
def test_fields_of_crops(decoding, most, conditional, data):
    field = CropField(LETTERS, data, ALIKE if conditional else None, 4, decoding, most)
    for batch in batches(data, 4, conditional):
        check_field(field, batch, antisymmetric=False)


@pytest.mark.parametrize("conditional", [False, True])
def test_fields_of_counted_kmers(conditional, data):
    clusters = fit_clusters(data, Crops(LENGTH, 4), 3, seed=0) if conditional else None
    field = KmerField(LETTERS, data, clusters, 4)
    for batch in batches(data, 4, conditional):
        check_field(field, batch, antisymmetric=False)
