"""One batch over many processes is one batch. Run by torchrun, this file is what each process does."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from drift_core import (
    Batch,
    Drift,
    KernelField,
    Laplace,
    Manifold,
    NearestField,
    Power,
    Sphere,
    TrainConfig,
    smoothed_score,
    train,
)
from drift_core.lengthscale import parse_lengthscales
from drift_core.runs.folder import Place, open_run
from drift_core.training.parallel import make_accelerator, merge_over_processes
from torch import Tensor, nn

PROCESSES = 3
EVEN, UNEVEN = 12, 10
"""Rows of a batch, which they share evenly or do not."""
STEPS = 15


class Mlp(nn.Module):
    """Noise to points of S^2, or to sequences of 8 distributions over 4 letters, as square roots."""

    def __init__(self, manifold: Manifold, dtype: torch.dtype, dropout: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.simplex = isinstance(manifold, Power)
        layers = nn.Linear(4, 32), nn.SiLU(), nn.Dropout(dropout), nn.Linear(32, 32 if self.simplex else 3)
        self.layers = nn.Sequential(*layers).to(dtype)

    def forward(self, z: Tensor) -> Tensor:
        x = self.layers(z)
        return x.view(-1, 8, 4).softmax(-1).sqrt() if self.simplex else nn.functional.normalize(x, dim=-1)

    def latent(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.randn(n, 4, generator=generator, dtype=self.layers[0].weight.dtype)


def sample(manifold: Manifold, dtype: torch.dtype, n: int, generator: torch.Generator) -> Tensor:
    if isinstance(manifold, Power):
        return nn.functional.one_hot(torch.randint(4, (n, 8), generator=generator), 4).to(dtype)
    east = torch.tensor([1.0, 0.0, 0.0], dtype=dtype)
    return manifold.projx(east + 0.5 * torch.randn(n, 3, generator=generator, dtype=dtype))


@dataclass
class OwnSamplesOnly:
    """The wrong scheme: samples repel those of their own process alone."""

    inner: KernelField

    @property
    def manifold(self) -> Manifold:
        return self.inner.manifold

    def __call__(self, batch: Batch) -> Drift:
        return self.inner(replace(batch, model=None, self_index=None))


class ShardedData(OwnSamplesOnly):
    """Each process holds a part of the data, and scores every process's samples against it."""

    def __call__(self, batch: Batch) -> Drift:
        accelerator, model = make_accelerator(), batch.model
        mine = torch.tensor_split(batch.data, accelerator.num_processes)[accelerator.process_index]
        partial_score = smoothed_score(self.manifold, Laplace(0.5), model, mine)
        merged = merge_over_processes(accelerator, partial_score)
        whole = smoothed_score(self.manifold, Laplace(0.5), model, batch.data)
        assert torch.allclose(merged.log_density, whole.log_density, rtol=0, atol=1e-12)
        return Drift(merged.gradient[batch.self_index], self.inner(batch).repulsion)


def nearest(field: KernelField) -> NearestField:
    """A field that remembers samples, from the seventh step on."""
    data = sample(field.manifold, torch.float64, 90, torch.Generator().manual_seed(1))
    return NearestField(field, data, buffer_size=60, neighbors=40, tolerance=0.9)


MANIFOLDS = {"sphere": Sphere(), "simplex": Power(Sphere())}
DTYPES = {"float32": torch.float32, "float64": torch.float64}
CASES = {
    f"{space}-{dtype}-{batch}": (space, dtype, {"batch_size": batch}, None)
    for space in MANIFOLDS
    for dtype in DTYPES
    for batch in (EVEN, UNEVEN)
} | {
    "num_negatives": ("simplex", "float64", {"num_negatives": 7}, None),
    "micro-batches": ("simplex", "float64", {"micro_batch_size": 2}, None),
    "sharded-data": ("sphere", "float64", {}, ShardedData),
    "nearest": ("sphere", "float64", {}, nearest),
    "wrong": ("sphere", "float64", {}, OwnSamplesOnly),
}


def run_case(out: Path, case: str) -> None:
    """Train from one of the CASES; leave the weights and the log in `out`/`case`."""
    space, dtype, settings, wrap = CASES[case]
    manifold = MANIFOLDS[space]
    field = KernelField(manifold, Laplace, parse_lengthscales("0.5"))
    config = TrainConfig.of(
        **{"batch_size": UNEVEN, "steps": STEPS, "ema_decay": 0.99, "log_every": 3, "warmup_steps": 6}
        | settings
    )
    draw = partial(sample, manifold, DTYPES[dtype])
    module = Mlp(manifold, DTYPES[dtype])
    train(module, wrap(field) if wrap else field, draw, config, out / case)
    if make_accelerator().is_main_process:
        torch.save(weights(module), out / case / "weights.pt")


def weights(module: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def stop_one_process_and_resume(out: Path) -> None:
    """With dropout: a signal to the last process stops all of them, and the run goes on exactly."""
    accelerator, manifold = make_accelerator(), Sphere()
    field = KernelField(manifold, Laplace, parse_lengthscales("0.5"))
    config = TrainConfig.of(batch_size=UNEVEN, steps=20, log_every=4, save_every=15)
    draws = 0

    def draw(n: int, generator: torch.Generator) -> Tensor:
        nonlocal draws
        draws += 1
        if draws == 8 and accelerator.process_index == accelerator.num_processes - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return sample(manifold, torch.float32, n, generator)

    whole, cut, resumed = (Mlp(manifold, torch.float32, dropout=0.2) for _ in range(3))
    train(whole, field, partial(sample, manifold, torch.float32), config, out / "whole")
    try:
        train(cut, field, draw, config, out / "cut")
    except KeyboardInterrupt:
        (out / f"stopped.{accelerator.process_index}").touch()
    train(resumed, field, partial(sample, manifold, torch.float32), config, out / "cut", resume=True)
    if torch.equal(weights(resumed), weights(whole)):
        (out / f"exact.{accelerator.process_index}").touch()


def fail_on_the_first_process(out: Path) -> None:
    """What the first process alone finds out is an error of all."""
    accelerator = make_accelerator()
    try:
        open_run(TrainConfig(), "sphere", Place(out / f"sphere-float64-{EVEN}"), accelerator)
    except ValueError as error:
        (out / f"refused.{accelerator.process_index}").write_text(str(error))


def fail_on_the_last_process(out: Path) -> None:
    """The other processes wait for rows that never come."""
    accelerator, manifold = make_accelerator(), Sphere()
    draws = 0

    def draw(n: int, generator: torch.Generator) -> Tensor:
        nonlocal draws
        draws += 1
        if draws == 8 and accelerator.process_index == accelerator.num_processes - 1:
            (out / "failing").touch()
            raise ValueError("the last row is bad")
        return sample(manifold, torch.float32, n, generator)

    field = KernelField(manifold, Laplace, parse_lengthscales("0.5"))
    train(Mlp(manifold, torch.float32), field, draw, TrainConfig.of(batch_size=UNEVEN, steps=10**6), out)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every case in one process."""
    out = tmp_path_factory.mktemp("alone")
    for case in CASES:
        run_case(out, case)
    return out


class Launch(NamedTuple):
    out: Path
    result: subprocess.CompletedProcess[str]
    seconds_after_failure: float


@pytest.fixture(scope="module")
def launch(tmp_path_factory: pytest.TempPathFactory) -> Launch:
    """Processes that train every case, are stopped and go on, and end as the last one fails."""
    out = tmp_path_factory.mktemp("together")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node"]
    command += [str(PROCESSES), __file__, str(out)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, env=env, timeout=300, check=False)
    assert (out / "failing").exists(), result.stderr
    return Launch(out, result, time.time() - (out / "failing").stat().st_mtime)


@pytest.fixture
def together(launch: Launch) -> Path:
    """Every case in several processes."""
    return launch.out


def difference(a: Path, b: Path, case: str) -> float:
    one, other = (torch.load(out / case / "weights.pt", weights_only=True) for out in (a, b))
    return float((one - other).abs().max())


@pytest.mark.parametrize("case", [case for case in CASES if case != "wrong"])
def test_processes_train_the_same_network_as_one(alone, together, case):
    tolerance = 1e-5 if "float32" in case else 1e-10
    assert difference(alone, together, case) < tolerance
    logs = [
        [json.loads(line) for line in (out / case / "metrics.jsonl").read_text().splitlines()]
        for out in (alone, together)
    ]
    assert len(logs[0]) == 5
    for one, other in zip(*logs, strict=True):
        assert other == pytest.approx(one, rel=1e-3 if "float32" in case else 1e-8)


def test_the_field_of_the_nearest_is_another(alone):
    assert difference(alone / "nearest", alone / "sphere-float64-10", ".") > 1e-3


def test_a_field_of_each_process_alone_trains_another_network(alone, together):
    assert difference(alone, together, "wrong") > 1e-3


@pytest.mark.parametrize("case", ["micro-batches", "sharded-data"])
def test_how_the_batch_is_computed_does_not_matter(alone, case):
    """Micro-batches, and data in parts, train what the plain run trains."""
    plain = {"micro-batches": "simplex-float64-10", "sharded-data": "sphere-float64-10"}[case]
    one, other = (torch.load(alone / name / "weights.pt", weights_only=True) for name in (case, plain))
    assert float((one - other).abs().max()) < 1e-10


def test_a_signal_to_one_process_stops_all_and_they_go_on_exactly(launch):
    assert len(list(launch.out.glob("stopped.*"))) == PROCESSES
    assert len(list(launch.out.glob("exact.*"))) == PROCESSES


def test_what_the_first_process_refuses_is_refused_by_all(launch):
    messages = [path.read_text() for path in launch.out.glob("refused.*")]
    assert len(messages) == PROCESSES
    assert all(f"sphere-float64-{EVEN} is not empty" in message for message in messages)


def test_a_failing_process_ends_all_with_its_message(launch):
    assert launch.result.returncode != 0
    assert "ValueError: the last row is bad" in launch.result.stderr
    assert launch.seconds_after_failure < 30


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    for name in CASES:
        run_case(folder, name)
    stop_one_process_and_resume(folder)
    fail_on_the_first_process(folder)
    fail_on_the_last_process(folder)
