"""Work spread over processes of one thread each, and over the GPUs that there are."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import Any, TypeVar

import torch

A = TypeVar("A")
B = TypeVar("B")

# No progress bars of their own, and one thread each, in every library.
_CHILD = {"TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1"}


def mapped(work: Callable[[A], B], items: Sequence[A], workers: int) -> Iterator[tuple[A, B]]:
    """Items with the results of `work`, as they finish; one worker works in this process.

    Raises what `work` raises, and OSError if a process was killed.
    """
    if workers == 1:
        yield from ((item, work(item)) for item in items)
        return
    with _environment(**_CHILD), _pool(workers) as pool:
        futures = {pool.submit(work, item): item for item in items}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool:
            raise OSError(
                "a process was killed, perhaps for want of memory; start again, with fewer `workers`"
            ) from None
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _pool(workers: int) -> ProcessPoolExecutor:
    """Processes that see one GPU each, in turn, where there are several."""
    context, devices = get_context("spawn"), visible_devices()
    turns: Any = context.Queue() if devices else None
    for i in range(workers if devices else 0):
        turns.put(devices[i % len(devices)])
    return ProcessPoolExecutor(workers, context, _begin, (turns,))


def visible_devices() -> list[str]:
    """GPUs that this process may use, by the names that CUDA_VISIBLE_DEVICES takes."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    found = [str(i) for i in range(torch.cuda.device_count())]
    return given.split(",")[: len(found)] if given else found


def _begin(turns: Any) -> None:
    Thread(target=_end_with_parent, daemon=True).start()
    if turns is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = turns.get()


def _end_with_parent() -> None:
    """However the process ends that started this one: its successor would train the same runs meanwhile."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Set environment variables for processes started within the context."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
