"""Train a network on random strings, with and without reweighted data, and measure its coverage."""

import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
from drift_core import BalancedField, Field, TrainConfig, train
from drift_core.kernel.by_name import make_kernel
from drift_core.lengthscale import parse_lengthscales
from drift_core.training.samplers import resample
from drift_simplex import CategoricalField
from torch import Generator, Tensor

from benchmarks.strings import StringGenerator, random_strings, support_metrics


class Strings(NamedTuple):
    """Sizes of a set of random strings, and settings of the training on it."""

    strings: int
    length: int
    vocab_size: int
    batch_size: int
    steps: int
    lr: float
    lengthscale: str
    codebook_size: int = 0
    num_negatives: int = 0
    balanced: bool = True
    rate: float = 0.3
    """Step size of the weights (`BalancedField`); 1 if the samples are far fewer than the strings."""


_FEW = Strings(64, 8, 4, batch_size=256, steps=3_000, lr=1e-3, lengthscale="0.3")
_MANY = Strings(512, 12, 6, batch_size=64, steps=8_000, lr=5e-3, lengthscale="0.6:0.3", num_negatives=448)
_CODEBOOK = _MANY._replace(codebook_size=1_024, steps=2_500, lr=3e-3, lengthscale="1.5:0.3")
CASES = (
    _FEW._replace(balanced=False),
    _FEW,
    _MANY,
    _CODEBOOK._replace(balanced=False),
    _CODEBOOK,
    _CODEBOOK._replace(length=32, lengthscale="2:0.3"),
    _CODEBOOK._replace(strings=4_096, batch_size=512, codebook_size=8_192, num_negatives=0, rate=1.0),
)
"""Cases; the largest has eight times as many strings as a batch has samples."""


def benchmark() -> None:
    """Train every case and print its validity, coverage and total variation (takes minutes)."""
    for case in CASES:
        support = random_strings(case.strings, case.length, case.vocab_size)
        start = time.process_time()
        model = fit(case, support)
        seconds = time.process_time() - start
        draws = max(4_000, 8 * case.strings)
        scores = support_metrics(model.sample(draws, Generator().manual_seed(1)), support)
        real = support[torch.randint(case.strings, (draws,), generator=Generator().manual_seed(2))]
        floor = support_metrics(real, support)["tv"]
        print(case)
        print(" ", *(f"{key} {value:.3f}" for key, value in scores.items()), f"(floor {floor:.3f})", end=" ")
        print(f"{seconds:.0f} CPU s")


def fit(case: Strings, support: Tensor) -> StringGenerator:
    """Train a network on the strings of a case."""
    data = torch.arange(case.strings) if case.balanced else support
    torch.manual_seed(0)
    model = StringGenerator(case.length, case.vocab_size, codebook_size=case.codebook_size)
    with TemporaryDirectory() as folder:
        return train(model, make_field(case, support), resample(data), settings(case), Path(folder))


def make_field(case: Strings, support: Tensor) -> Field:
    """Drift field of a case."""
    kernel = partial(make_kernel, "matern" if case.codebook_size else "laplace")
    field = CategoricalField(case.vocab_size, kernel, parse_lengthscales(case.lengthscale))
    return BalancedField(field, support, rate=case.rate) if case.balanced else field


def settings(case: Strings) -> TrainConfig:
    """Settings of the training loop for a case."""
    return TrainConfig.of(
        steps=case.steps,
        num_positives=case.strings,
        batch_size=case.batch_size,
        num_negatives=case.num_negatives,
        lr=case.lr,
        decay_fraction=0.5,
        ema_decay=0.995 if case.strings < case.batch_size else 0,
        weight_decay=0.0,
        max_step=1.0,
    )
