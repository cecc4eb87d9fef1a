"""A small language as a test bed of generalisation: half of it is trained on, the other half held out."""

import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from drift_core import Field, SumField, TrainConfig, train
from drift_core.kernel.by_name import make_kernel
from drift_core.lengthscale import Lengthscales
from drift_core.runs.metrics import metrics_table, summary
from drift_core.training.samplers import resample
from drift_simplex import (
    CategoricalField,
    LetterClasses,
    abs_normalize,
    class_field,
    decode_best,
    window_field,
)
from drift_simplex.generator import LOGIT_STD, ResidualMLP, draw_latents, init_layer
from einops import rearrange
from jaxtyping import Float, Int64
from torch import Generator, Tensor, nn

from benchmarks.strings import support_metrics

LETTERS = "CN()1"
"""Two atoms, a branch's brackets, and the digit that marks both ends of a ring."""
_ATOMS = "CN"
_CLASSES = [0, 0, 1, 2, 3]
"""Class of each letter: the atoms are one."""
_LENGTH, _STEPS, _DRAWS = 9, 1_500, 50_000
_BEST_OF = 1, 2, 4
"""Candidates for each string."""
_FEATURES = 32
"""Numbers that the network computes for each position."""
_ANNEALING = 0.7
"""Fraction of training over which the lengthscales anneal."""
_WINDOW = 6
_WEIGHTS = 0.3, 1.0, 1.0
"""Of whole strings, which alone tell what was seen from what was not, of their classes and of windows."""
_SAMPLED_AT_ONCE = 8_192


def language(length: int) -> Int64[Tensor, "count length"]:
    """All strings of a grammar of molecules, as tokens in `LETTERS`: 10,096 of length 9.

    A string is a chain of atoms. Branches in brackets, which start with an atom, follow an atom, a digit or
    another branch. At most one ring is marked by the digit 1 after the two atoms that it joins.
    """
    strings = [""]
    for left in range(length - 1, -1, -1):
        strings = [string + letter for string in strings for letter in _continuations(string, left)]
    return torch.tensor([[LETTERS.index(letter) for letter in string] for string in strings])


def _continuations(string: str, left: int) -> list[str]:
    """Letters that may follow the beginning of a string, if `left` more are enough to close what is open."""
    last, digits = string[-1:], string.count("1")
    allowed = [*_ATOMS]
    if string and last != "(":
        allowed += ["("]
    if last != "(" and string.count("(") > string.count(")"):
        allowed += [")"]
    if last and last in _ATOMS and digits < 2:
        allowed += ["1"]
    return [letter for letter in allowed if _open(string + letter) <= left]


def _open(string: str) -> int:
    """Brackets and rings that are not closed."""
    return string.count("(") - string.count(")") + string.count("1") % 2


class Halves(NamedTuple):
    """A language split at random, of which a network sees one half."""

    train: Int64[Tensor, "count length"]
    held_out: Int64[Tensor, "count length"]


def halves(strings: Int64[Tensor, "count length"], seed: int = 0) -> Halves:
    """Split strings at random; the first half is the smaller one, if their number is odd."""
    shuffled = strings[torch.randperm(len(strings), generator=Generator().manual_seed(seed))]
    return Halves(shuffled[: len(strings) // 2], shuffled[len(strings) // 2 :])


def generalisation(tokens: Int64[Tensor, "n length"], parts: Halves) -> dict[str, float]:
    """Compare n strings with the two halves of a language.

    "valid" is the fraction of the strings in the language, "novel" the fraction in the held-out half;
    "covered" is the fraction of the training half among the strings, "found" that of the held-out half.
    """
    seen, new = (support_metrics(tokens, part) for part in parts)
    valid = seen["valid"] + new["valid"]
    return {"valid": valid, "novel": new["valid"], "covered": seen["covered"], "found": new["covered"]}


def perfect(n: int, parts: Halves) -> dict[str, float]:
    """Expected `generalisation` of n strings drawn uniformly from the language."""
    count = sum(map(len, parts))
    covered = 1 - (1 - 1 / count) ** n
    return {"valid": 1.0, "novel": len(parts.held_out) / count, "covered": covered, "found": covered}


class GrammarGenerator(nn.Module):
    """Residual MLP from Bernoulli (+-1) latents to points [n, length, letters] on the positive orthant."""

    def __init__(self, length: int, channels: int = 24, width: int = 256, blocks: int = 4) -> None:
        super().__init__()
        self.channels, self.length = channels, length
        self.mlp = ResidualMLP(channels, width, blocks, length * _FEATURES)
        self.position = nn.Parameter(torch.randn(length, _FEATURES))
        self.norm = nn.LayerNorm(_FEATURES, elementwise_affine=False)
        self.logits = init_layer(nn.Linear(_FEATURES, len(LETTERS)), std=LOGIT_STD)

    def forward(self, z: Float[Tensor, "n channels"]) -> Float[Tensor, "n length letters"]:
        """Points for latents."""
        h = self.mlp(z).unflatten(1, (self.length, _FEATURES)) + self.position
        return abs_normalize(self.logits(self.norm(h)))

    def latent(self, n: int, generator: Generator) -> Float[Tensor, "n channels"]:
        """Draw `n` fresh latents."""
        return draw_latents((n, self.channels), "bernoulli", generator)

    @torch.no_grad()
    def sample(self, n: int, generator: Generator, best_of: int = 1) -> Int64[Tensor, "n length"]:
        """Draw `n` strings, each the best of some candidates (`decode_best`)."""
        parts = torch.split(self.latent(n * best_of, generator), _SAMPLED_AT_ONCE * best_of)
        points = (rearrange(self(part), "(n k) l a -> n k l a", k=best_of) for part in parts)
        return torch.cat(list(map(decode_best, points)))


def field_of(strings: Int64[Tensor, "count length"]) -> Field:
    """Field of whole strings, of their classes of letters, and of windows.

    The lengthscales anneal over 70% of training.
    """
    matern, size = partial(make_kernel, "matern"), len(LETTERS)
    scales, window_scales = (Lengthscales((a,), (b,), _ANNEALING) for a, b in ((1.5, 0.15), (1.0, 0.4)))
    whole = CategoricalField(size, matern, scales)
    coarse = CategoricalField(max(_CLASSES) + 1, matern, scales)
    classes = class_field(LetterClasses(_CLASSES), coarse, strings)
    window = CategoricalField(size, matern, window_scales, product=True)
    return SumField([whole, classes, window_field(window, strings.shape[1], _WINDOW)], _WEIGHTS)


def fit(parts: Halves, steps: int, seed: int = 0, **settings: Any) -> GrammarGenerator:
    """Train a network on the first half of a language; `settings` are changes of those of training."""
    torch.manual_seed(seed)
    model = GrammarGenerator(parts.train.shape[1])
    config = TrainConfig.of(
        **{
            "steps": steps,
            "batch_size": 512,
            "num_positives": len(parts.train),
            "lr": 3e-3,
            "optimizer": "muon",
            "step_size": 0.2,
            "decay_fraction": 0.5,
            "seed": seed,
            **settings,
        }
    )
    with TemporaryDirectory() as folder:
        return train(model, field_of(parts.train), resample(parts.train), config, Path(folder))


def benchmark(seeds: int) -> None:
    """Train on half of a language, another for each seed, and print what networks make of the other half."""
    found: dict[str, list[tuple[float, float]]] = {}
    start = time.process_time()
    for seed in range(seeds):
        parts = halves(language(_LENGTH), seed)
        model, floors = fit(parts, _STEPS, seed), perfect(_DRAWS, parts)
        for best_of in _BEST_OF:
            scores = generalisation(model.sample(_DRAWS, Generator().manual_seed(seed), best_of), parts)
            for name, score in scores.items():
                found.setdefault(f"{name}, best of {best_of}", []).append((score, floors[name]))
    seconds = time.process_time() - start
    print(metrics_table({name: summary(*zip(*pairs, strict=True)) for name, pairs in found.items()}))
    print(f"{seconds / seeds:.0f} CPU s a seed")
