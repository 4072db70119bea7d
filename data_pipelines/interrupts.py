"""Processes that ^C does not reach: whoever started them is told, and ends them."""

import contextlib
import multiprocessing.resource_tracker
import signal
from collections.abc import Iterator


@contextlib.contextmanager
def interrupts_held() -> Iterator[None]:
    """Processes that this thread starts within are never told of ^C."""
    # Started with the first process, it would let ^C through again.
    multiprocessing.resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
