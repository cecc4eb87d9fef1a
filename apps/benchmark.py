"""Time the field against the obvious ways to compute it: benchmark.py score | memory | simplex | strings."""

import platform
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Literal, NamedTuple

import _cli
import torch
import tyro
from drift_core import BalancedField, Field, Laplace, Sphere, TrainConfig, smoothed_score, train
from drift_core.kernel.by_name import make_kernel
from drift_core.lengthscale import parse_lengthscales
from drift_core.training.loop import resample
from drift_simplex import CategoricalField, StringGenerator, random_strings, support_metrics
from drift_simplex import benchmark as categorical
from torch import Tensor

SPHERE, KERNEL = Sphere(), Laplace(0.3)


@dataclass(kw_only=True)
class Config:
    """Benchmarks of the drift field on S^2, float32; each line is a ratio to a named baseline."""

    name: Annotated[Literal["score", "memory", "simplex", "strings"], tyro.conf.Positional] = "score"
    """score: time against autograd and a broadcast logmap; memory: peak beside the number of references;
    simplex: one-hot and soft sequences against broadcasting (takes minutes);
    strings: train a network on random strings with and without balanced attraction (takes minutes)."""
    n: int = 4096
    """Queries, and for score also references."""
    repeats: int = 5
    """Runs of each candidate, interleaved; the fastest counts."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where to run."""


def cloud(n: int, seed: int, device: str) -> Tensor:
    """Uniform points on S^2."""
    return SPHERE.projx(torch.randn(n, 3, generator=torch.Generator().manual_seed(seed))).to(device)


def autograd_of(dist: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> Tensor:
    """Gradient of logsumexp_j log k(dist(x_i, y_j)) by reverse-mode differentiation."""
    at = x.clone().requires_grad_()
    total = KERNEL.log(dist(at, y)).logsumexp(dim=1).sum()
    return SPHERE.proju(x, torch.autograd.grad(total, at)[0])


def broadcast_logmap(x: Tensor, y: Tensor) -> Tensor:
    """The same gradient as a weighted sum of an [n, m, 3] tensor of logarithms."""
    r = SPHERE.dist(x[:, None], y)
    weight = KERNEL.log(r).softmax(dim=1) * -KERNEL.dlog(r) / r
    return (weight[..., None] * SPHERE.logmap(x[:, None], y)).sum(dim=1)


def best_times(candidates: dict[str, Callable[[], Tensor]], config: Config) -> dict[str, float]:
    """Fastest of several runs of each candidate in seconds, taken in turn: all see the same machine."""
    times = {name: float("inf") for name in candidates}
    for _ in range(config.repeats + 1):
        for name, run in candidates.items():
            start = time.perf_counter()
            float(run().sum())  # waits for the device
            times[name] = min(times[name], time.perf_counter() - start)
    return times


def score(config: Config) -> None:
    """Time smoothed_score against autograd through three distances, and against a broadcast logmap."""
    x, y = cloud(config.n, 0, config.device), cloud(config.n, 1, config.device)
    arccos = lambda a, b: torch.arccos((a @ b.T).clamp(-1 + 1e-6, 1 - 1e-6))  # noqa: E731
    times = best_times(
        {
            "smoothed_score": lambda: smoothed_score(SPHERE, KERNEL, x, y).gradient,
            "autograd, Sphere.cdist": lambda: autograd_of(SPHERE.cdist, x, y),
            "autograd, 2 atan2 broadcast": lambda: autograd_of(lambda a, b: SPHERE.dist(a[:, None], b), x, y),
            "autograd, arccos (inaccurate)": lambda: autograd_of(arccos, x, y),
            "broadcast logmap": lambda: broadcast_logmap(x, y),
        },
        config,
    )
    print(f"S^2, n = m = {config.n}, float32")
    for name, seconds in times.items():
        print(f"{name:<32}{1e3 * seconds:>10.1f} ms{seconds / times['smoothed_score']:>8.1f} x")


def memory(config: Config) -> None:
    """Peak memory of the process as the number of references grows a hundredfold."""
    x = cloud(1024, 0, "cpu")
    for m in (10_000, 100_000, 1_000_000):
        y = cloud(m, 1, "cpu")
        before = _peak()
        start = time.perf_counter()
        smoothed_score(SPHERE, KERNEL, x, y)
        seconds = time.perf_counter() - start
        print(f"n = 1024, m = {m:>9,}: {_peak() - before:>6.1f} MB more at the peak, {seconds:>6.2f} s")


def simplex(config: Config) -> None:
    """Time one-hot and fused scores on sequences against the obvious ways to compute them (minutes)."""
    categorical.benchmark(config.repeats)


class Strings(NamedTuple):
    """A case of random strings, and how it is trained."""

    strings: int
    length: int
    letters: int
    batch_size: int
    steps: int
    lr: float
    lengthscale: str
    codes: int = 0
    num_negatives: int = 0
    balanced: bool = True
    rate: float = 0.3
    """Of the weights of the strings: a whole step where the batch is far smaller than the strings."""


_FEW = Strings(64, 8, 4, batch_size=256, steps=3_000, lr=1e-3, lengthscale="0.3")
_MANY = Strings(512, 12, 6, batch_size=64, steps=8_000, lr=5e-3, lengthscale="0.6:0.3", num_negatives=448)
_CODES = _MANY._replace(codes=1_024, steps=2_500, lr=3e-3, lengthscale="1.5:0.3")
STRINGS = (
    _FEW._replace(balanced=False),
    _FEW,
    _MANY,
    _CODES._replace(balanced=False),
    _CODES,
    _CODES._replace(length=32, lengthscale="2:0.3"),
    _CODES._replace(strings=4_096, batch_size=512, codes=8_192, num_negatives=0, rate=1.0),
)
"""Strings, up to eight times as many as a batch has samples."""


def strings(config: Config) -> None:
    """Quality on random strings, where validity, coverage and total variation are exact (minutes)."""
    for case in STRINGS:
        settings = TrainConfig(
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
        support = random_strings(case.strings, case.length, case.letters)
        kernel = partial(make_kernel, "matern" if case.codes else "laplace")
        plain = CategoricalField(case.letters, kernel, parse_lengthscales(case.lengthscale))
        field: Field = BalancedField(plain, support, rate=case.rate) if case.balanced else plain
        data = torch.arange(case.strings) if case.balanced else support
        torch.manual_seed(0)
        model = StringGenerator(case.length, case.letters, codes=case.codes)
        start = time.process_time()
        with TemporaryDirectory() as folder:
            generator = train(model, field, resample(data), settings, Path(folder))
        seconds = time.process_time() - start
        draws = max(4_000, 8 * case.strings)
        scores = support_metrics(generator.sample(draws, torch.Generator().manual_seed(1)), support)
        real = support[torch.randint(case.strings, (draws,), generator=torch.Generator().manual_seed(2))]
        floor = support_metrics(real, support)["tv"]
        print(case)
        print(" ", *(f"{key} {value:.3f}" for key, value in scores.items()), f"(floor {floor:.3f})", end=" ")
        print(f"{seconds:.0f} CPU s")


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def processor(device: str) -> str:
    """Name of what computes: of the GPU, else of the processor, where the system tells."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    table = Path("/proc/cpuinfo")
    lines = table.read_text().splitlines() if table.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def main(config: Config) -> None:
    """Run the named benchmark."""
    print(processor(config.device))
    {"score": score, "memory": memory, "simplex": simplex, "strings": strings}[config.name](config)


def parse() -> Config:
    """Settings from the command line."""
    return tyro.cli(Config)


if __name__ == "__main__":
    _cli.run(main, parse)
