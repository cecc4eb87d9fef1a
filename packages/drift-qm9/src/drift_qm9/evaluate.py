"""Metrics of a generator beside their floors, the values that a perfect generator would get."""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import rdkit
import torch
from drift_core.runs.datasets import cache_folder
from drift_core.runs.floors import Floors, Key, cached_floors
from drift_core.runs.metrics import Measured, Metrics, evaluate_draws, frechet
from drift_core.seeds import generator_for
from jaxtyping import Int64
from numpy.typing import NDArray
from torch import Generator, Tensor

from drift_qm9.chemistry import Molecule, fingerprints_of
from drift_qm9.data import Molecules
from drift_qm9.metrics import (
    bigrams,
    descriptors,
    lengths,
    molecules,
    quality,
    ring_counts,
    ring_sizes,
    total_variation,
    unigrams,
    wasserstein,
)

Sampler = Callable[[int, Generator], Tensor]
"""Draws the token ids [n, length] of n sequences with a generator of random numbers."""

_VALUE, _FLOOR, _MANY = 0, 1, 2
"""Random streams."""

SAMPLES = 1024
"""Sequences of one draw, as published."""

MANY = 10_000
"""Sequences of the one draw that shows how fast distinct molecules run out."""

_NOVELTY = ("novel", "novel_of_unique", "valid_and_novel")

VERSION = 4
"""Raise this when the same data are to give other floors; RDKit's version counts already."""


def evaluate(
    sampler: Sampler,
    data: Molecules,
    on: Literal["val", "test"] = "test",
    draws: int = 20,
    seed: int = 0,
) -> Metrics:
    """Score draws of 1,024 sequences, metric by name.

    Fractions `valid`, `unique_of_valid`, `unique_of_all`, `novel`, `novel_of_unique` and `valid_and_novel`
    are those of `quality`, novel against the training molecules; `unique_of_10000` is `unique_of_all` of
    10,000 sequences, which are drawn once. `nearest_train` is the mean Tanimoto similarity of the new
    molecules of one draw to the nearest training molecule, NaN without any. Distances to the held-out
    molecules: `lengths_w1` (Wasserstein-1 of token counts), and total variations `tokens_tv`, `bigrams_tv`,
    of all strings; `rings_tv` (rings of a molecule), `ring_sizes_tv`, and `frechet` (descriptors, z-scored
    on the held-out molecules), of the valid ones, NaN in a draw without. Where the data are complete,
    `coverage` is the share of all molecules that a draw reaches.

    The floor is the same, of the same size, for a perfect generator (`resample`). Novelty has none, unless
    the data are complete: how much of the world is not in the data is unknown. That of `nearest_train` is of
    held-out molecules. Standard deviations are those of one draw (0 if there is only one).
    Raises ValueError for draws < 1.
    """
    measure, written = Measure(data, on), data.notation.to_smiles
    generator, floors = generator_for(seed, _VALUE), molecule_floors(measure, data, on, draws, seed)

    def measure_draw(i: int) -> Measured:
        strings = written(sampler(SAMPLES, generator))
        found = measure(strings)
        if i == 0:
            found |= measure.many(written(sampler(MANY, generator_for(seed, _MANY))))
            found |= measure.nearest(strings)
        return found, floors[i]

    return evaluate_draws(measure_draw, draws)


def resample(data: Molecules, size: int, generator: Generator) -> Int64[Tensor, "size length"]:
    """Draw `size` rows: what a generator that has learnt the data's law, but not the data, would give.

    Where the data are complete these are uniform draws from all molecules. Else they are training rows,
    without replacement, like fresh data, up to half of them, and with replacement beyond.
    """
    rows = torch.cat([data.train, data.val, data.test]) if data.complete else data.train
    n = len(rows)
    if not data.complete and 2 * size <= n:
        return rows[torch.randperm(n, generator=generator)[:size]]
    return rows[torch.randint(n, (size,), generator=generator)]


class Measure:
    """All metrics of a list of strings, against one data set, of which statistics are taken once."""

    def __init__(self, data: Molecules, on: Literal["val", "test"]) -> None:
        written = data.notation.to_smiles
        train, held_out = written(data.train), written(data.val if on == "val" else data.test)
        self.held_out = held_out
        self.known = frozenset(train)
        self.everything = {*train, *written(data.val), *written(data.test)} if data.complete else None
        self.lengths, self.unigrams, self.bigrams = lengths(held_out), unigrams(held_out), bigrams(held_out)
        real = molecules(held_out)
        self.ring_counts, self.ring_sizes = ring_counts(real), ring_sizes(real)
        table = descriptors(real)
        self.mean, self.std = table.mean(0), np.where(table.std(0) > 0, table.std(0), 1)
        self.descriptors = self._scaled(real)

    def __call__(self, strings: list[str]) -> dict[str, float]:
        """Metrics of the strings by name."""
        found = molecules(strings)
        values = quality(strings, self.known)
        if self.everything is not None:
            reached = self.everything & {mol.smiles for mol in found}
            values["coverage"] = len(reached) / len(self.everything)
        return values | {
            "lengths_w1": wasserstein(lengths(strings), self.lengths),
            "tokens_tv": total_variation(unigrams(strings), self.unigrams),
            "bigrams_tv": total_variation(bigrams(strings), self.bigrams),
            "rings_tv": total_variation(ring_counts(found), self.ring_counts),
            "ring_sizes_tv": total_variation(ring_sizes(found), self.ring_sizes),
            "frechet": frechet(self._scaled(found), self.descriptors),
        }

    def many(self, strings: list[str]) -> dict[str, float]:
        """The metric of many strings."""
        return {"unique_of_10000": quality(strings, self.known)["unique_of_all"]}

    def nearest(self, strings: list[str]) -> dict[str, float]:
        """The similarity of new molecules to training molecules, whose fingerprints take seconds."""
        new = sorted({mol.smiles for mol in molecules(strings)} - self.known)
        similarities = list(map(fingerprints_of(self.known).nearest, new)) if new else [math.nan]
        return {"nearest_train": sum(similarities) / len(similarities)}

    def _scaled(self, mols: Sequence[Molecule]) -> NDArray[np.float64]:
        return (descriptors(mols) - self.mean) / self.std


def molecule_floors(
    measure: Measure, data: Molecules, on: Literal["val", "test"], draws: int, seed: int
) -> Floors:
    """Floors of the measure, from the cache if they are in it."""
    generator, written = generator_for(seed, _FLOOR), data.notation.to_smiles
    settings = repr((VERSION, data.notation.name, rdkit.__version__, on, data.complete, SAMPLES, seed))
    key: Key = {"settings": settings, "train": data.train, "val": data.val, "test": data.test}

    def floor(i: int) -> dict[str, float]:
        found = measure(written(resample(data, SAMPLES, generator)))
        if i == 0:
            found |= measure.many(written(resample(data, MANY, generator_for(seed, _FLOOR, _MANY))))
            found |= measure.nearest(measure.held_out[:SAMPLES])
        return found if data.complete else found | dict.fromkeys(_NOVELTY, math.nan)

    return cached_floors(cache_folder("qm9"), key, floor, draws)
