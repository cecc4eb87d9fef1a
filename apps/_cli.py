"""What every application does with its command line."""

import os
import sys

# Before torch is imported: threads that wait for one another spin for tens of microseconds, then sleep.
# By default they spin on, and where the cores are shared with other processes every small operation
# waits for a time slice (measured: 40 times slower); without any spinning the field takes 1.6 times as long.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn, TypeVar

import tyro
from drift_core.runs.folder import read_config, restore_config
from drift_core.runs.metrics import Metrics, metrics_table, write_metrics
from drift_core.training.config import RunConfig
from drift_core.training.denormal import denormals_as_zero

C = TypeVar("C")
R = TypeVar("R", bound=RunConfig)

DOMAINS = ("sphere", "synthetic", "qm9", "promoter")


def run(main: Callable[[C], None], parse: Callable[[], C]) -> None:
    """Parse and run; what the user can mend becomes one line on stderr and exit status 2.

    Set DRIFT_DEBUG=1 to see the traceback instead.
    """
    try:
        with denormals_as_zero():  # as `train` does, but before torch starts its threads, which inherit it
            main(parse())
    except (ValueError, OSError, FloatingPointError) as error:
        _refuse(error, " ".join(str(error).split()))
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        _refuse(error, "out of memory; try a smaller --batch-size, --micro-batch-size or --n")
    except KeyboardInterrupt:
        print("stopped; continue with --resume", file=sys.stderr)
        sys.exit(130)


def _refuse(error: Exception, message: str) -> NoReturn:
    if os.environ.get("DRIFT_DEBUG"):
        raise error
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def train_config(config: type[R]) -> R:
    """Configuration from the command line; with --resume, what is not given there is taken from the run."""
    given = tyro.cli(config)
    if not given.resume or given.out is None:
        return given
    stored = restore_config(config, read_config(given.out))
    return tyro.cli(config, default=replace(stored, out=given.out))


def experiment_of(run: Path) -> tuple[ModuleType, Any]:
    """Module that knows how to handle a run, by the domain in its config.json, and the run's settings.

    Raises:
        ValueError: the folder holds no run, or one of an unknown domain.
    """
    stored = read_config(run)
    if stored["domain"] not in DOMAINS:
        raise ValueError(f"{run} is a run of {stored['domain']!r}; this version knows {', '.join(DOMAINS)}")
    module = import_module(f"drift_{stored['domain']}.experiment")
    return module, restore_config(module.Config, stored)


def conclude(out: Path, metrics: Metrics) -> None:
    """Write a run's metrics.json, print it, and say where the run is."""
    write_metrics(out, metrics)
    print(metrics_table(metrics))
    print(f"run folder: {out}")
