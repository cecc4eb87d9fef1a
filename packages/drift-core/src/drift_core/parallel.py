"""One batch over many processes: who owns which rows, and what is shared."""

import os
from importlib.util import find_spec
from typing import NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor


def make_accelerator(tracker: str = "none") -> Accelerator:
    """Accelerator that joins every launched process; on a machine without a GPU it has to be told so.

    Args:
        tracker: where to log besides metrics.jsonl, "tensorboard" or "wandb"; "none" for nowhere.

    Raises:
        ValueError: the tracker's package is not installed.
        RuntimeError: the launcher started more processes than Accelerate sees, so that each would
            silently train alone.
    """
    if tracker != "none" and find_spec(tracker) is None:
        raise ValueError(
            f"--tracker {tracker} needs the package {tracker}; install it, or leave the flag out"
        )
    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(), log_with=None if tracker == "none" else tracker
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
    """Split the rows 0..n-1 of a batch evenly over the processes, in order."""
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
