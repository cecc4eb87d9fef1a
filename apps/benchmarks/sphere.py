"""Time and memory of scores on S^2, against autograd and a broadcast logmap."""

import time
from collections.abc import Callable

import torch
from drift_core import Laplace, Sphere, smoothed_score
from torch import Tensor

from benchmarks.timing import best_times, peak_memory

SPHERE, KERNEL = Sphere(), Laplace(0.3)


def score(n: int, repeats: int, device: str) -> None:
    """Time smoothed_score against autograd through three distances, and against a broadcast logmap."""
    x, y = cloud(n, 0, device), cloud(n, 1, device)
    times = best_times(
        {
            "smoothed_score": lambda: smoothed_score(SPHERE, KERNEL, x, y).gradient,
            "autograd, Sphere.cdist": lambda: autograd_of(SPHERE.cdist, x, y),
            "autograd, 2 atan2 broadcast": lambda: autograd_of(lambda a, b: SPHERE.dist(a[:, None], b), x, y),
            "autograd, arccos (inaccurate)": lambda: autograd_of(arccos, x, y),
            "broadcast logmap": lambda: broadcast_logmap(x, y),
        },
        repeats + 1,
    )
    print(f"S^2, n = m = {n}, float32")
    for name, (seconds, _) in times.items():
        ratio = seconds / times["smoothed_score"].seconds
        print(f"{name:<32}{1e3 * seconds:>10.1f} ms{ratio:>8.1f} x")


def memory() -> None:
    """Print the peak memory of the process as the number of references grows a hundredfold."""
    x = cloud(1024, 0, "cpu")
    for m in (10_000, 100_000, 1_000_000):
        y = cloud(m, 1, "cpu")
        before, start = peak_memory(), time.perf_counter()
        smoothed_score(SPHERE, KERNEL, x, y)
        seconds, more = time.perf_counter() - start, peak_memory() - before
        print(f"n = 1024, m = {m:>9,}: {more:>6.1f} MB more at the peak, {seconds:>6.2f} s")


def cloud(n: int, seed: int, device: str) -> Tensor:
    """Uniform points on S^2."""
    return SPHERE.projx(torch.randn(n, 3, generator=torch.Generator().manual_seed(seed))).to(device)


def autograd_of(dist: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> Tensor:
    """Gradient of logsumexp_j log k(dist(x_i, y_j)) by reverse-mode differentiation."""
    at = x.clone().requires_grad_()
    total = KERNEL.log(dist(at, y)).logsumexp(dim=1).sum()
    return SPHERE.proju(x, torch.autograd.grad(total, at)[0])


def arccos(x: Tensor, y: Tensor) -> Tensor:
    """Angles between all pairs of unit vectors, inaccurate between close ones."""
    return torch.arccos((x @ y.T).clamp(-1 + 1e-6, 1 - 1e-6))


def broadcast_logmap(x: Tensor, y: Tensor) -> Tensor:
    """The same gradient as a weighted sum of an [n, m, 3] tensor of logarithms."""
    r = SPHERE.dist(x[:, None], y)
    weight = KERNEL.log(r).softmax(dim=1) * -KERNEL.dlog(r) / r
    return (weight[..., None] * SPHERE.logmap(x[:, None], y)).sum(dim=1)
