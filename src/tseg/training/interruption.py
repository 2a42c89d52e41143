"""Signals that ask a training to stop: it saves its state and exits with a code that means "start me again"."""

import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

EXIT_CODE = 75
"""EX_TEMPFAIL of sysexits.h: a failure that trying again mends."""
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
"""Of SLURM or a shell that ends the job, of Ctrl-C, of SLURM before a job's time limit."""

Requested = Callable[[], str | None]
"""Returns the name of the signal that asked to stop, or None."""


class Interrupted(SystemExit):
    """Ends the process with `EXIT_CODE` after the state is saved."""

    def __init__(self) -> None:
        super().__init__(EXIT_CODE)


@contextmanager
def stop_requests() -> Generator[Requested]:
    """Yield a function that tells which of `SIGNALS` has come. A second Ctrl-C interrupts at once.

    Python receives signals in the main thread alone; in another, nothing asks to stop.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    received: list[str] = []

    def receive(number: int, _: FrameType | None) -> None:
        received.append(signal.Signals(number).name)
        signal.signal(signal.SIGINT, before[signal.SIGINT])

    before = {number: signal.signal(number, receive) for number in SIGNALS}
    try:
        yield lambda: received[0] if received else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore_signals(_: int = 0) -> None:
    """Let a worker process ignore `SIGNALS`, which SLURM and Ctrl-C send to all: it ends with its training."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
