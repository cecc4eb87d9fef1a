"""Checkpoints: what is kept, what is refused, and that everything that determines a run is in them."""

from pathlib import Path

import pytest
import torch
from drift_core import Euclidean, Gaussian, KernelField, TrainConfig, train
from drift_core.lengthscale import parse_lengthscales
from drift_core.training.checkpoint import checkpoint_bytes, load_best, load_checkpoint, newest_checkpoint
from drift_core.training.records import read_records
from torch import Tensor, nn

FIELD = KernelField(Euclidean(), Gaussian, parse_lengthscales("1.0"))


class Net(nn.Module):
    """A small network with dropout and a buffer."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        torch.manual_seed(0)
        layers = nn.Linear(2, width), nn.BatchNorm1d(width), nn.SiLU(), nn.Dropout(0.3), nn.Linear(width, 2)
        self.layers = nn.Sequential(*layers)

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z)

    def latent(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.randn(n, 2, generator=generator)


def sample(n: int, generator: torch.Generator) -> Tensor:
    return 1 + torch.randn(n, 2, generator=generator)


def run(out: Path, steps: int = 12, *, width: int = 8, resume: bool = False, validate=None, **settings):
    given = {"steps": steps, "batch_size": 16, "ema_decay": 0.99, "save_every": 4, "log_every": 3}
    config = TrainConfig.of(**given | settings)
    return train(Net(width), FIELD, sample, config, out, resume=resume, validate=validate)


def state(module: nn.Module) -> list[Tensor]:
    return list(module.state_dict().values())


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(state(a), state(b), strict=True))


def names(out: Path) -> list[str]:
    return sorted(path.name for path in (out / "checkpoints").iterdir())


def test_dropout_and_running_statistics_go_on_where_they_were(tmp_path):
    whole = run(tmp_path / "whole")
    run(tmp_path / "cut", steps=8)
    torch.rand(7)  # the state of the global generator is not what matters
    assert same(run(tmp_path / "cut", resume=True), whole)


def test_as_many_are_kept_as_asked_for(tmp_path):
    run(tmp_path / "one", keep=1)
    run(tmp_path / "three", keep=3)
    assert names(tmp_path / "one") == ["step_000000012.pt"]
    assert names(tmp_path / "three") == ["step_000000004.pt", "step_000000008.pt", "step_000000012.pt"]
    assert newest_checkpoint(tmp_path / "three") == tmp_path / "three" / "checkpoints" / "step_000000012.pt"


def test_later_checkpoints_do_not_outlive_a_return_to_an_earlier_one(tmp_path, capfd):
    run(tmp_path, 12, keep=1)
    run(tmp_path / "other", 8, keep=1)
    newest = tmp_path / "checkpoints" / "step_000000012.pt"
    newest.write_bytes(b"damaged")
    (tmp_path / "other" / "checkpoints" / "step_000000008.pt").rename(newest.with_name("step_000000008.pt"))
    run(tmp_path, 9, keep=1, resume=True)
    assert f"{newest} is damaged" in capfd.readouterr().err
    assert [path.name for path in newest.parent.iterdir()] == ["step_000000009.pt"]


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    run(tmp_path)
    with pytest.raises(ValueError, match=r"step_000000012\.pt is of another network.*size mismatch"):
        run(tmp_path, width=9, resume=True)
    with pytest.raises(ValueError, match=r"step_000000012\.pt is of another network.*critic"):
        load_checkpoint(tmp_path, {"critic": Net()}, pytest.fail)


def test_fewer_steps_than_are_done_are_refused(tmp_path):
    run(tmp_path)
    with pytest.raises(ValueError, match="at step 12 already, beyond `steps` 5"):
        run(tmp_path, 5, resume=True)


@pytest.mark.parametrize(
    "changed", [{"weight_decay": 10.0}, {"beta1": 0.5}, {"beta2": 0.5}, {"optimizer": "adam"}], ids=str
)
def test_changed_settings_take_effect(tmp_path, changed):
    for name in ("a", "b"):
        run(tmp_path / name, 8, weight_decay=1.0)
    as_before = run(tmp_path / "a", 12, resume=True, weight_decay=1.0)
    otherwise = run(tmp_path / "b", 12, resume=True, **{"weight_decay": 1.0, **changed})
    assert not same(as_before, otherwise)


class Scores:
    """Validation scores in turn; remembers what was scored."""

    def __init__(self, *scores: float) -> None:
        self.scores, self.seen = list(scores), []

    def __call__(self, module: Net) -> float:
        assert not module.training
        self.seen.append([x.clone() for x in state(module)])
        return self.scores.pop(0)


def test_the_best_on_validation_is_kept(tmp_path):
    scores = Scores(3.0, 1.0, 2.0)
    trained = run(tmp_path, validate=scores)
    assert trained.training
    assert names(tmp_path) == ["best.pt", "step_000000008.pt", "step_000000012.pt"]
    best = Net()
    assert load_best(tmp_path, best) == 1.0
    assert all(torch.equal(x, y) for x, y in zip(state(best), scores.seen[1], strict=True))
    assert not same(best, trained)
    logged = {r["step"]: r["validation"] for r in read_records(tmp_path) if "validation" in r}
    assert logged == {4: 3.0, 8: 1.0, 12: 2.0}
    assert [r["step"] for r in read_records(tmp_path)] == [3, 4, 6, 8, 9, 12]


def test_the_best_is_remembered_by_a_resumed_run(tmp_path):
    run(tmp_path, 8, validate=Scores(1.0, 2.0))
    kept = (tmp_path / "checkpoints" / "best.pt").read_bytes()
    run(tmp_path, 12, validate=Scores(1.5), resume=True)
    assert (tmp_path / "checkpoints" / "best.pt").read_bytes() == kept


def test_a_score_that_is_no_number_is_never_the_best(tmp_path):
    run(tmp_path, validate=Scores(float("nan"), 5.0, float("nan")))
    assert load_best(tmp_path, Net()) == 5.0
    logged = [r["validation"] for r in read_records(tmp_path) if "validation" in r]
    assert logged == [None, 5.0, None]


def test_a_best_that_is_not_there_damaged_or_of_another_network(tmp_path):
    run(tmp_path / "without")
    with pytest.raises(ValueError, match="trained without validation"):
        load_best(tmp_path / "without", Net())
    run(tmp_path, validate=lambda module: 0.0)
    with pytest.raises(ValueError, match=r"best\.pt is damaged or of another network"):
        load_best(tmp_path, Net(width=9))
    path = tmp_path / "checkpoints" / "best.pt"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"best\.pt is damaged.*sha256"):
        load_best(tmp_path, Net())


def test_the_size_of_checkpoints_is_foreseen(tmp_path):
    run(tmp_path, width=4096)
    size = (tmp_path / "checkpoints" / "step_000000012.pt").stat().st_size
    assert size == pytest.approx(checkpoint_bytes(Net(4096)), rel=0.1)


def test_torch_reads_a_checkpoint_as_it_stands(tmp_path):
    run(tmp_path)
    stored = torch.load(tmp_path / "checkpoints" / "step_000000012.pt", weights_only=True)
    assert stored["step"] == 12
    assert stored["records"] == (tmp_path / "metrics.jsonl").read_text()
