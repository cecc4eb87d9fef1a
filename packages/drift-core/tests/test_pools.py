"""Pools, shards and parts of a batch; what several processes do with them is in the root's tests."""

from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from drift_core import Batch, Drift, KernelField, Laplace, Score, Sphere, TrainConfig, drift, train
from drift_core.lengthscale import parse_lengthscales
from drift_core.seeds import generator_for
from drift_core.training.learner import DATA, LATENT
from drift_core.training.network import MicroBatches, evaluating
from drift_core.training.parallel import make_accelerator, merge_over_processes, on_main, same_on_all, shard
from drift_core.training.records import read_records
from torch import Tensor, nn

FIELD = KernelField(Sphere(), Laplace, parse_lengthscales("0.5"))


class Net(nn.Module):
    """Noise to points of S^2; remembers how many rows it was given at a time."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(3, 16), nn.SiLU(), nn.Linear(16, 3)).to(dtype)
        self.rows: list[int] = []

    def forward(self, z: Tensor) -> Tensor:
        self.rows.append(len(z))
        return nn.functional.normalize(self.layers(z), dim=-1)

    def latent(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.randn(n, 3, generator=generator, dtype=self.layers[0].weight.dtype)


def sample(n: int, generator: torch.Generator) -> Tensor:
    return Sphere().projx(torch.randn(n, 3, generator=generator, dtype=torch.float64))


def weights(module: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def test_negatives_join_the_pool_and_are_not_trained(tmp_path):
    config = TrainConfig.of(steps=1, batch_size=8, num_negatives=5, num_positives=30)
    network = Net()
    train(network, FIELD, sample, config, tmp_path)
    (record,) = read_records(tmp_path)
    fresh = Net()
    with torch.no_grad():
        everything = fresh(fresh.latent(13, generator_for(0, 0, LATENT)))
    data = sample(30, generator_for(0, 0, DATA))
    v = drift(Sphere(), Laplace(0.5), everything[:8], data, everything, self_index=torch.arange(8))
    assert record["drift_norm"] == pytest.approx(float(v.norm(dim=1).mean()), rel=1e-12)
    without = drift(Sphere(), Laplace(0.5), everything[:8], data)
    assert abs(record["drift_norm"] - float(without.norm(dim=1).mean())) > 1e-3
    assert sorted(network.rows) == [5, 8]


def test_micro_batches_bound_the_rows_and_change_nothing(tmp_path):
    settings = {"steps": 20, "batch_size": 11, "warmup_steps": 0, "num_negatives": 7}
    networks = [Net(), Net()]
    whole, parts = (
        train(network, FIELD, sample, TrainConfig.of(micro_batch_size=size, **settings), tmp_path / str(size))
        for network, size in zip(networks, (None, 4), strict=True)
    )
    assert max(networks[0].rows) == 11
    assert max(networks[1].rows) == 4
    assert float((weights(whole) - weights(parts)).abs().max()) < 1e-12


def test_a_repeated_forward_pass_drops_the_same_units():
    """For y = w . dropout(z) the gradient of w is what was kept, so that w . gradient is the sum of y."""
    linear = nn.Linear(50, 1, bias=False)
    network = MicroBatches(nn.Sequential(nn.Dropout(0.5), linear), 3)
    y = network(torch.ones(10, 50))
    y.sum().backward()
    product = linear.weight.grad.flatten() @ linear.weight.detach().flatten()
    assert float(product) == pytest.approx(float(y.detach().sum()), rel=1e-4)
    assert len(set(y.detach().flatten().tolist())) > 5


@pytest.mark.parametrize(
    ("inside", "outside"),
    [(torch.bfloat16, torch.float32), (torch.float32, torch.float32), (torch.float64, torch.float64)],
)
def test_outputs_have_single_precision_at_least(inside, outside):
    z = torch.ones(5, 2, dtype=inside)
    for size in (None, 2):
        assert MicroBatches(nn.Linear(2, 2).to(inside), size)(z).dtype == outside


def test_evaluation_is_for_a_while():
    network = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout(), nn.Dropout()))
    network[1][0].eval()
    with evaluating(network):
        assert not any(part.training for part in network.modules())
    assert [part.training for part in network.modules()] == [True, True, True, False, True]


def test_shards_cover_the_batch_in_order_and_differ_by_one_row_at_most():
    class Process(Accelerator):
        device, num_processes, process_index = torch.device("cpu"), 4, 0

        def __init__(self, index: int) -> None:
            self.process_index = index

    shards = [shard(Process(i), 10) for i in range(4)]
    assert torch.equal(torch.cat([s.own for s in shards]), torch.arange(10))
    assert all(s.sizes == [3, 3, 2, 2] for s in shards)
    assert [s.share for s in shards] == pytest.approx([1.2, 1.2, 0.8, 0.8])
    with pytest.raises(ValueError, match="`batch_size` and `num_negatives`: 3 rows for 4 processes"):
        shard(Process(0), 3)


def test_processes_that_find_different_checkpoints_are_stopped(monkeypatch):
    accelerator = make_accelerator()
    assert same_on_all(accelerator, 7, "checkpoints") == 7
    monkeypatch.setattr("drift_core.training.parallel.gather_object", lambda values: [*values, 8])
    with pytest.raises(ValueError, match=r"different checkpoints: \[7, 8\]; the run folder must be shared"):
        same_on_all(accelerator, 7, "checkpoints")


def test_the_first_process_works_for_all():
    accelerator = make_accelerator()
    assert on_main(accelerator, lambda: 3) == 3
    with pytest.raises(OSError, match="full"):
        on_main(accelerator, lambda: (_ for _ in ()).throw(OSError("full")))


def test_one_process_has_nothing_to_merge():
    score = Score(torch.zeros(2), torch.ones(2, 3))
    assert merge_over_processes(make_accelerator(), score) is score


class Recording:
    """Keeps the batches that it was asked about."""

    manifold = Sphere()

    def __init__(self) -> None:
        self.asked: list[Batch] = []

    def __call__(self, batch: Batch) -> Drift:
        self.asked.append(batch)
        return FIELD(batch)


def test_every_row_finds_itself_in_the_pool_and_no_gradient_flows(tmp_path):
    field, seen = Recording(), []
    config = TrainConfig.of(steps=2, batch_size=8, num_negatives=3)
    train(
        Net(), field, sample, config, Path(tmp_path), accelerator=Accelerator(cpu=True), on_step=seen.append
    )
    assert [id(batch) for batch in seen] == [id(batch) for batch in field.asked]
    for step, batch in enumerate(field.asked):
        assert (batch.step, batch.progress) == (step, step / 2)
        assert torch.equal(batch.model[batch.self_index], batch.x)
        assert len(batch.model) == 11
        assert not batch.model.requires_grad
        assert not batch.x.requires_grad
