"""Time one-hot and fused scores on sequences against naive implementations."""

import time
from collections.abc import Callable
from functools import partial

import torch
from drift_core import Laplace, Manifold, Power, RadialKernel, Sphere, smoothed_score
from drift_simplex import FisherRao, kmer_scores, onehot_score, onehot_to_sphere, to_sphere
from torch import Tensor

from benchmarks.timing import best_times, peak_memory

KERNEL = Laplace(0.5)
SHAPES = ((32, 35), (256, 4))
"""Length and vocabulary size: molecules as SMILES, and a crop of DNA."""
QUERIES, REFERENCES, SOFT = 256, 4096, 512
TRAINING_SET = 127_000
"""References of the memory benchmark: molecules in the training split of QM9."""
KMER_LENGTH = 8

Angle = Callable[[Tensor, Tensor], Tensor]


def benchmark(repeats: int = 3) -> None:
    """Print memory, times, ratios and agreement of every benchmark, float32 on the CPU, in a few minutes."""
    print(
        f"float32, cpu, {torch.get_num_threads()} threads; the fastest of {repeats} interleaved runs counts"
    )
    memory()
    for length, vocab_size in SHAPES:
        onehot(length, vocab_size, repeats)
    for length, vocab_size in SHAPES:
        soft(length, vocab_size, repeats)
    kmers(repeats)


def memory() -> None:
    """Peak memory of one step with a whole training set as positives."""
    x, tokens = _points(QUERIES, 32, 35, seed=0), _tokens(TRAINING_SET, 32, 35)
    onehot_score(KERNEL, x, tokens[:REFERENCES])
    before, start = peak_memory(), time.perf_counter()
    onehot_score(KERNEL, x, tokens)
    seconds, more = time.perf_counter() - start, peak_memory() - before
    print(f"\none-hot references, n = {QUERIES}, m = {TRAINING_SET:,}, L = 32, K = 35")
    print(f"{'onehot_score':<34}{1e3 * seconds:>10.1f} ms, {more:.0f} MB more at the peak")


def onehot(length: int, vocab_size: int, repeats: int) -> None:
    """Time `onehot_score` against dense fields of the same references as points on the sphere."""
    x, tokens = _points(QUERIES, length, vocab_size, seed=0), _tokens(REFERENCES, length, vocab_size)
    y = onehot_to_sphere(tokens, vocab_size)
    print(f"\none-hot references, n = {QUERIES}, m = {REFERENCES}, L = {length}, K = {vocab_size}")
    _compare(
        {
            "onehot_score": lambda: onehot_score(KERNEL, x, tokens).gradient,
            "broadcast, 2 atan2": lambda: broadcast_gradient(KERNEL, x, y, two_atan2),
            "broadcast, arccos": lambda: broadcast_gradient(KERNEL, x, y, arccos),
            "smoothed_score, Power(Sphere())": partial(_gradient, Power(Sphere()), x, y),
        },
        repeats,
    )


def soft(length: int, vocab_size: int, repeats: int) -> None:
    """Time the fused pairs of `FisherRao` against those of `Power(Sphere())`."""
    x, y = (_points(SOFT, length, vocab_size, seed) for seed in (0, 1))
    print(f"\nsoft references, n = m = {SOFT}, L = {length}, K = {vocab_size}")
    _compare(
        {
            "smoothed_score, FisherRao()": partial(_gradient, FisherRao(), x, y),
            "smoothed_score, Power(Sphere())": partial(_gradient, Power(Sphere()), x, y),
        },
        repeats,
    )


def kmers(repeats: int) -> None:
    """Time `kmer_scores` on counts of DNA k-mers against `onehot_score` on every occurrence."""
    w = KMER_LENGTH
    x, tokens = _points(SOFT, w, 4, seed=0), _tokens(4**w, w, 4)
    indices = tokens @ 4 ** torch.arange(w - 1, -1, -1)
    counts = indices.bincount(minlength=4**w)
    print(f"\n{w}-mers of 4 letters, n = {SOFT}, {len(tokens):,} occurrences")
    _compare(
        {
            "kmer_scores": lambda: kmer_scores([KERNEL], x, counts)[0].gradient,
            "onehot_score": lambda: onehot_score(KERNEL, x, tokens, product=True).gradient,
        },
        repeats,
    )


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


def _compare(candidates: dict[str, Callable[[], Tensor]], repeats: int) -> None:
    """Print the fastest time of each candidate, and its ratio and relative error to the first."""
    timings = best_times(candidates, repeats)
    base = next(iter(timings.values()))
    for name, (seconds, result) in timings.items():
        off = float((result - base.result).norm() / base.result.norm())
        print(f"{name:<34}{1e3 * seconds:>10.1f} ms{seconds / base.seconds:>8.1f} x   off by {off:.0e}")


def _gradient(manifold: Manifold, x: Tensor, y: Tensor) -> Tensor:
    return smoothed_score(manifold, KERNEL, x, y).gradient


def _points(n: int, length: int, vocab_size: int, seed: int) -> Tensor:
    """Soft points, as an untrained generator makes them."""
    logits = 2 * torch.randn(n, length, vocab_size, generator=torch.Generator().manual_seed(seed))
    return to_sphere(logits.softmax(dim=-1))


def _tokens(m: int, length: int, vocab_size: int) -> Tensor:
    return torch.randint(vocab_size, (m, length), generator=torch.Generator().manual_seed(2))
