"""Distribution of one batch over many processes."""

import os
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, NamedTuple, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor, nn
from tqdm.auto import tqdm

from drift_core.reduction import Score, merge_scores
from drift_core.training.network import evaluating

T = TypeVar("T")


def make_accelerator(tracker: str = "none") -> Accelerator:
    """Accelerator over all launched processes, on the CPU if there is no GPU.

    Args:
        tracker: where to log besides metrics.jsonl, "tensorboard" or "wandb"; "none" for nowhere.

    Raises:
        ValueError: the tracker's package is not installed.
        RuntimeError: the launcher started more processes than Accelerate sees, so that each would
            silently train alone.
    """
    if tracker != "none" and find_spec(tracker) is None:
        raise ValueError(f"`tracker` {tracker} needs the package {tracker}; install it, or take none")
    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(),
        log_with=None if tracker == "none" else tracker,
        project_dir=".",  # trackers require one; `open_run` replaces it by the run folder
    )
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if launched != accelerator.num_processes:
        raise RuntimeError(f"{launched} processes were launched, but {accelerator.num_processes} take part")
    return accelerator


class Shard(NamedTuple):
    """The rows of a global batch that a process owns."""

    sizes: list[int]
    """Rows of each process, which differ by one at most."""
    own: Tensor
    """Global indices of this process's rows."""
    share: float
    """Factor that turns a mean over own rows, averaged over processes, into the mean over all rows."""


def shard(accelerator: Accelerator, n: int) -> Shard:
    """Split the rows 0..n-1 of a batch evenly over the processes, in order.

    Raises:
        ValueError: there are more processes than rows.
    """
    if n < accelerator.num_processes:
        raise ValueError(
            f"`batch_size` and `num_negatives`: {n} rows for {accelerator.num_processes} processes"
        )
    parts = torch.arange(n).tensor_split(accelerator.num_processes)
    own = parts[accelerator.process_index].to(accelerator.device)
    return Shard([len(part) for part in parts], own, len(own) * accelerator.num_processes / n)


def pool(accelerator: Accelerator, x: Tensor, sizes: list[int]) -> Tensor:
    """All processes' rows in global order, without gradients; shorter shards are padded to be gathered."""
    x = x.detach()
    if accelerator.num_processes == 1:
        return x
    padded = x.new_zeros((max(sizes), *x.shape[1:]))
    padded[: len(x)] = x
    gathered = accelerator.gather(padded).split(max(sizes))
    return torch.cat([part[:size] for part, size in zip(gathered, sizes, strict=True)])


def warm_up(accelerator: Accelerator, model: nn.Module, *inputs: Tensor) -> None:
    """Run a backward pass before training, so that all steps sum gradients in the same order.

    DistributedDataParallel reorders its buckets after the first backward pass, and sums over three or more
    processes are then rounded differently: a resumed run would differ from an uninterrupted one. The
    gradients of the pass are dropped.
    """
    if accelerator.num_processes > 1:
        with evaluating(model):
            accelerator.backward(0 * model(*inputs).sum())
        model.zero_grad(set_to_none=True)


def mean_over_processes(accelerator: Accelerator, record: dict[str, float], share: float) -> dict[str, float]:
    """Means over all rows, from each process's means over its own."""
    if accelerator.num_processes == 1:
        return record
    values = torch.tensor(list(record.values()), dtype=torch.float64, device=accelerator.device) * share
    mean = accelerator.reduce(values, reduction="mean").tolist()
    return dict(zip(record, mean, strict=True))


def any_process(accelerator: Accelerator, flag: bool) -> bool:
    """Whether the flag is set on any process; all of them get the same answer."""
    if accelerator.num_processes == 1:
        return flag
    votes = torch.tensor([float(flag)], device=accelerator.device)
    return bool(accelerator.reduce(votes, reduction="sum").item() > 0)


def on_main(accelerator: Accelerator, work: Callable[[], T]) -> T:
    """Run `work` on the first process only, and return its result on every process.

    Raises:
        OSError, ValueError: as `work`, on every process, so that none waits for one that has ended.
    """
    outcome: list[Any] = [None]
    if accelerator.is_main_process:
        try:
            outcome = [work()]
        except (OSError, ValueError) as error:
            outcome = [error]
    (result,) = broadcast_object_list(outcome)
    if isinstance(result, OSError | ValueError):
        raise result
    return result


def same_on_all(accelerator: Accelerator, value: int, what: str) -> int:
    """Return the value, after checking that it is the same on every process.

    Raises:
        ValueError: the values differ.
    """
    values = gather_object([value])
    if len(set(values)) > 1:
        raise ValueError(f"the processes find different {what}: {values}; the run folder must be shared")
    return value


def merge_over_processes(accelerator: Accelerator, score: Score) -> Score:
    """Score over the references of all processes, from each process's score over its own references.

    For reference sets that do not fit into one process: only n log-densities and gradients are sent, not the
    references. The queries must be the same on all processes, such as the pooled samples `Batch.model`.
    """
    if accelerator.num_processes == 1:
        return score
    n = len(score.log_density)
    parts = (accelerator.gather(part.contiguous()).split(n) for part in score)
    return merge_scores(*map(Score._make, zip(*parts, strict=True)))


def warn(accelerator: Accelerator, message: str) -> None:
    """Print a one-line warning on stderr, on the first process only, without breaking a progress bar."""
    if accelerator.is_main_process:
        tqdm.write(f"warning: {message}", file=sys.stderr)
