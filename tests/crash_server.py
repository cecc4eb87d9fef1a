"""Jobs in forked processes that are killed on request: imports are paid for once, not at every start.

Reads requests from stdin, one JSON object a line, and answers each with a line: the exit status of every
process (negative: killed by that signal), and the number of file operations of the first.
"""

import json
import mmap
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import drift_sphere
import torch
from drift_core import Euclidean, Gaussian, KernelField, cli
from drift_core.files import write_json
from drift_core.lengthscale import parse_lengthscales
from drift_core.runs.datasets import PublishedFile
from drift_core.runs.folder import Place, open_run
from drift_core.training.config import TrainConfig
from drift_core.training.loop import train
from drift_core.training.parallel import make_accelerator
from drift_sphere.domain import SphereDomain

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "shutil.rmtree", "os.truncate"}


class Affine(torch.nn.Linear):
    """x = A z + b."""

    def latent(self, n: int, generator: torch.Generator) -> torch.Tensor:
        return torch.randn(n, 2, generator=generator)


def tiny(out: str, *flags: str) -> None:
    """A run of a few milliseconds with every kind of file operation that training has."""
    config = TrainConfig.of(steps=8, batch_size=8, save_every=3, log_every=2)
    accelerator = make_accelerator()
    folder = open_run(config, "tiny", Place(Path(out), "--resume" in flags), accelerator)
    torch.manual_seed(0)
    field = KernelField(Euclidean(), Gaussian, parse_lengthscales("1.0"))
    trained = train(
        Affine(2, 2),
        field,
        lambda n, generator: torch.randn(n, 2, generator=generator),
        config,
        folder,
        accelerator=accelerator,
        resume="--resume" in flags,
        validate=lambda module: float(module.weight.detach().norm()),
    )
    write_json(folder / "metrics.json", {"weights": trained.weight.tolist()})


def app(*args: str) -> None:
    """apps/train_sphere.py, as from the command line."""
    sys.argv = ["train_sphere.py", *args]
    cli.train(SphereDomain())


def fill_cache(source: str, sha256: str, cache: str) -> None:
    """Load an Earth data set from a server into an empty cache."""
    drift_sphere.EARTH["fire"] = PublishedFile("earth", "fire.csv", f"{source}/fire.csv", sha256)
    os.environ.pop("DRIFT_DATA_DIR", None)
    os.environ["XDG_CACHE_HOME"] = cache
    drift_sphere.load_earth("fire")


JOBS: dict[str, Callable[..., None]] = {"tiny": tiny, "app": app, "fill_cache": fill_cache}


def watch_files(count: mmap.mmap, out: str, last: int | None) -> None:
    """Count the operations that change files under `out`; kill this process just before number `last`."""

    def hook(event: str, args: tuple[object, ...]) -> None:
        changes = event in _CHANGES or (event == "open" and isinstance(args[2], int) and args[2] & _WRITES)
        if changes and any(isinstance(a, str | os.PathLike) and str(a).startswith(out) for a in args):
            seen = int.from_bytes(count[:8], "little") + 1
            count[:8] = seen.to_bytes(8, "little")
            if seen == last:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def fork(request: dict, count: mmap.mmap) -> int:
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        if "out" in request:
            watch_files(count, request["out"], request.get("operation"))
        JOBS[request["job"]](*request["args"])
        code = 0
    except SystemExit as stop:
        code = int(str(stop.code))
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    finally:
        sys.stdout.flush()
        os._exit(code)


def kill_later(process: int, request: dict) -> None:
    """SIGKILL after a time, counted from when the log of the run is opened, if the process lives so long."""
    records, begin = Path(request["out"]) / "metrics.jsonl", time.time()
    while not (records.exists() and records.stat().st_mtime >= begin - 0.01):
        if os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return
        time.sleep(0.001)
    time.sleep(request["after"])
    os.kill(process, signal.SIGKILL)


def serve() -> None:
    torch.set_num_threads(1)
    torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])  # imports much at its first use
    for line in sys.stdin:
        request = json.loads(line)
        count = mmap.mmap(-1, 8)
        processes = [fork(request, count) for _ in range(request.get("copies", 1))]
        if "after" in request:
            kill_later(processes[0], request)
        codes = [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes]
        print(json.dumps({"codes": codes, "operations": int.from_bytes(count[:8], "little")}), flush=True)


if __name__ == "__main__":
    serve()
