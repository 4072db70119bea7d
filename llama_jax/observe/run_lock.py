"""The lock on a run's folder, which one process at a time holds."""

import contextlib
import fcntl
import json
import os
import sys
import time
from pathlib import Path

from llama_jax.remote.holder import (
    PATIENCE_SECONDS,
    InUseError,
    describe_self,
    lives_here,
    name_of,
    parse,
)

NAME = "lock"
_HOLDER_BYTES = 1000
_LOOK_SECONDS = 0.5


def take_lock(folder: Path) -> int:
    """Locks a folder, and returns the descriptor that holds it, to be closed.

    The kernel drops the lock with its process, however that ends; a file server hears late of a
    machine that died. So a holder elsewhere is waited for.

    Raises:
        ValueError: If a process of this machine holds it, named by pid and host.
        InUseError: If one of another machine does, and does not let go.
    """
    path = folder / NAME
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        _wait(descriptor, path)
    except BaseException:
        os.close(descriptor)
        raise
    # The file stays at the end, for another process may be waiting on the same one.
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{json.dumps(describe_self())}\n".encode(), 0)
    return descriptor


def _wait(descriptor: int, path: Path) -> None:
    began, said = time.monotonic(), False
    while True:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        holder = parse(os.pread(descriptor, _HOLDER_BYTES, 0))
        held = f"run_dir={path.parent} is in use by {name_of(holder)}"
        if lives_here(holder):
            raise ValueError(f"{held}. Wait for it, stop it, or name another folder.")
        waited = time.monotonic() - began
        if waited >= PATIENCE_SECONDS:
            raise InUseError(
                f"{held}, and was for {waited:.0f} s. Try again later; if that machine is dead and "
                f"its lock outlives it, delete {path}."
            )
        if not said:
            print(f"llama-jax: {held}; waiting for it", file=sys.stderr)
        said = True
        time.sleep(_LOOK_SECONDS)
