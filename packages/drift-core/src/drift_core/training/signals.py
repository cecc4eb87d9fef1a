"""Deferral of stop signals, so that a run ends between two steps."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_ECHO = 1.0
"""Seconds within which a second signal is taken for the first one, forwarded by a launcher."""


@contextmanager
def deferred_stop() -> Iterator[Callable[[], bool]]:
    """Defer SIGINT (Ctrl-C) and SIGTERM (schedulers), and yield a function that returns whether one came.

    A second signal acts at once, unless it comes within a second: Ctrl-C in a terminal reaches every
    process of torchrun, which then sends another one to each of them. A signal that was ignored (Ctrl-C under
    nohup) stays ignored. Outside the main thread, which alone may handle signals, nothing is deferred.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    came: list[float] = []
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    before = {number: handler for number, handler in handlers.items() if handler != signal.SIG_IGN}

    def handle(number: int, frame: FrameType | None) -> None:
        came.append(time.monotonic())
        if came[-1] - came[0] > _ECHO:
            restore()
            os.kill(os.getpid(), number)

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    for number in before:
        signal.signal(number, handle)
    try:
        yield lambda: bool(came)
    finally:
        restore()
