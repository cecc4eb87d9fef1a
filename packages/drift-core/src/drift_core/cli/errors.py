"""What a command prints when it cannot go on: one line, with settings as flags."""

import os
import re
import sys
from collections.abc import Callable, Collection
from typing import NoReturn

from drift_core.training.denormal import denormals_as_zero


def run(
    main: Callable[[], None],
    without_flags: Collection[str] = (),
    stopped: str = "stopped; --resume goes on with a training run",
) -> None:
    """Run a command; an error that the user can fix becomes one line on stderr and exit status 2.

    Settings that messages name in backticks are printed as flags, except those `without_flags`. `stopped` is
    printed if the command is interrupted. Set DRIFT_DEBUG=1 to see the traceback instead.
    """
    try:
        with denormals_as_zero():  # as `train` does, but before torch starts its threads, which inherit it
            main()
    except (ValueError, OSError, FloatingPointError) as error:
        _refuse(error, as_flags(" ".join(str(error).split()), without_flags))
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        _refuse(error, "out of memory; try a smaller --batch-size, --micro-batch-size or --n")
    except KeyboardInterrupt:
        print(stopped, file=sys.stderr)
        sys.exit(130)


def _refuse(error: Exception, message: str) -> NoReturn:
    if os.environ.get("DRIFT_DEBUG"):
        raise error
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def as_flags(message: str, without_flags: Collection[str] = ()) -> str:
    """Message with the settings named in backticks written as flags, except those `without_flags`."""

    def flag(found: re.Match[str]) -> str:
        name = found.group(1)
        return name if name in without_flags else "--" + name.replace("_", "-")

    return re.sub(r"`(\w+)`", flag, message)
