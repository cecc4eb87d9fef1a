"""Cases of scores of sequences, as their length L and their vocabulary K grow."""

from collections.abc import Callable
from functools import partial

import torch
from drift_core import Laplace, Power, RadialKernel, Sphere
from drift_simplex import FisherRao, kmer_scores, onehot_score, onehot_to_sphere, to_sphere
from torch import Tensor

from benchmarks.baselines import torch_form
from benchmarks.case import Candidates, Case
from benchmarks.points import TORCH, gradient

KERNEL = Laplace(0.5)
SHAPES = ((32, 4), (128, 4), (256, 4), (32, 35), (32, 140))
"""Length and vocabulary size; 32 x 35 are molecules as SMILES, 256 x 4 is a crop of DNA."""
QUERIES, REFERENCES, SOFT = 64, 4096, 512
TRAINING_SET = 127_000
"""Molecules in the training split of QM9."""
KMER_LENGTH = 8
ONEHOT, BROADCAST, FISHER_RAO, POWER = (
    "onehot_score",
    "broadcast, 2 atan2",
    "smoothed_score, FisherRao()",
    "smoothed_score, Power(Sphere())",
)

Angle = Callable[[Tensor, Tensor], Tensor]


def tokens(device: str) -> list[Case]:
    """One-hot references, and a whole training set of them."""
    cases = [_onehot(REFERENCES, *shape, device, naive=True) for shape in SHAPES]
    return [*cases, _onehot(TRAINING_SET, 32, 35, device, naive=False)]


def soft(device: str) -> list[Case]:
    """Soft references, as of the repulsion."""
    return [
        Case(
            "soft",
            f"soft, n = m = {SOFT:,}, L = {length}, K = {vocab_size}",
            {"n": SOFT, "m": SOFT, "L": length, "K": vocab_size},
            partial(_soft_candidates, SOFT, length, vocab_size, device),
            (FISHER_RAO, TORCH),
        )
        for length, vocab_size in SHAPES
    ]


def kmers(device: str) -> list[Case]:
    """Counts of DNA k-mers, against every occurrence."""
    w, m = KMER_LENGTH, 4**KMER_LENGTH
    build = partial(_kmer_candidates, SOFT, w, device)
    return [Case("kmers", f"{w}-mers, n = {SOFT:,}, m = {m:,}", {"n": SOFT, "m": m, "L": w, "K": 4}, build)]


def _onehot(m: int, length: int, vocab_size: int, device: str, naive: bool) -> Case:
    name = f"one-hot, n = {QUERIES:,}, m = {m:,}, L = {length}, K = {vocab_size}"
    sizes = {"n": QUERIES, "m": m, "L": length, "K": vocab_size}
    build = partial(_onehot_candidates, QUERIES, m, length, vocab_size, device, naive)
    return Case("tokens", name, sizes, build, (ONEHOT, TORCH, BROADCAST) if naive else (ONEHOT, TORCH))


def _onehot_candidates(n: int, m: int, length: int, vocab_size: int, device: str, naive: bool) -> Candidates:
    x, references = _points(n, length, vocab_size, 0, device), _tokens(m, length, vocab_size, device)

    def run() -> Tensor:
        return onehot_score(KERNEL, x, references).gradient

    candidates: Candidates = {ONEHOT: run, TORCH: torch_form(run)}
    if not naive:
        return candidates
    y = onehot_to_sphere(references, vocab_size)
    return candidates | {
        BROADCAST: partial(broadcast_gradient, KERNEL, x, y, two_atan2),
        "broadcast, arccos": partial(broadcast_gradient, KERNEL, x, y, arccos),
        POWER: partial(gradient, Power(Sphere()), KERNEL, x, y),
    }


def _soft_candidates(n: int, length: int, vocab_size: int, device: str) -> Candidates:
    x, y = (_points(n, length, vocab_size, seed, device) for seed in (0, 1))
    run = partial(gradient, FisherRao(), KERNEL, x, y)
    return {FISHER_RAO: run, TORCH: torch_form(run)}


def _kmer_candidates(n: int, w: int, device: str) -> Candidates:
    x, references = _points(n, w, 4, 0, device), _tokens(4**w, w, 4, device)
    powers = 4 ** torch.arange(w - 1, -1, -1, device=device)
    indices = (references * powers).sum(1)  # GPUs have no product of integer matrices
    counts = indices.bincount(minlength=4**w)
    return {
        "kmer_scores": lambda: kmer_scores([KERNEL], x, counts)[0].gradient,
        ONEHOT: lambda: onehot_score(KERNEL, x, references, product=True).gradient,
    }


def broadcast_gradient(kernel: RadialKernel, x: Tensor, y: Tensor, angle: Angle) -> Tensor:
    """Kernel gradient as a weighted sum of logarithms, by broadcasting over [m, L, K] for each query."""
    rows = []
    for point in x:
        theta = angle(point, y)
        r = theta.square().sum(-1).sqrt()
        weight = kernel.log(r).softmax(0) * -kernel.dlog(r) / r
        logs = (theta / theta.sin())[..., None] * (y - theta.cos()[..., None] * point)
        rows.append((weight[:, None, None] * logs).sum(0))
    return torch.stack(rows)


def two_atan2(x: Tensor, y: Tensor) -> Tensor:
    """Angles between broadcast unit vectors, accurate everywhere."""
    return 2 * torch.atan2((x - y).norm(dim=-1), (x + y).norm(dim=-1))


def arccos(x: Tensor, y: Tensor) -> Tensor:
    """Angles between broadcast unit vectors, inaccurate between close ones."""
    return torch.arccos((x * y).sum(-1).clamp(max=1 - 1e-7))


def _points(n: int, length: int, vocab_size: int, seed: int, device: str) -> Tensor:
    """Soft points, as an untrained generator makes them."""
    logits = 2 * torch.randn(n, length, vocab_size, generator=torch.Generator().manual_seed(seed))
    return to_sphere(logits.softmax(dim=-1)).to(device)


def _tokens(m: int, length: int, vocab_size: int, device: str) -> Tensor:
    tokens = torch.randint(vocab_size, (m, length), generator=torch.Generator().manual_seed(2))
    return tokens.to(device)
