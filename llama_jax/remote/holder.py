"""Who holds a run: how a process names itself, and whether one that is named is here and lives.

    held = describe_self()                  # what a lock or a lease says
    name_of(held)                           # "pid 12 on host-3 since 2026-01-31 10:00:00 +0000"
    lives_here(held)                        # None where only its own machine can tell

Whoever finds a run held waits for a while: a host that died leaves a lock behind for as long as its
file server believes in it, and processes that were asked to stop may still be saving. Only where
the holder is seen to live on this machine is there nothing to wait for.
"""

import contextlib
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

# A file server keeps what a dead client locked for about 90 s (the lease of NFS, version 4).
PATIENCE_SECONDS = 120.0


class InUseError(OSError):
    """Another process holds the run, and whether it lives cannot be told: try again later."""


def describe_self() -> dict[str, Any]:
    """What this process says of itself where it holds a run."""
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "machine": _machine(),
    }


def parse(held: bytes | None) -> dict[str, Any]:
    """What a holder says of itself; empty where that is not readable."""
    try:
        return dict(json.loads(held or b"{}"))
    except (ValueError, TypeError):
        return {}


def name_of(holder: dict[str, Any]) -> str:
    """A holder, for people."""
    if "pid" not in holder:
        return "another process"
    return f"pid {holder['pid']} on {holder.get('host')} since {holder.get('since')}"


def lives_here(holder: dict[str, Any]) -> bool | None:
    """Whether a holder is a process of this machine that lives, or one that is gone.

    None where another machine, or another container, would have to be asked.
    """
    if holder.get("machine") != _machine() or not isinstance(holder.get("pid"), int):
        return None
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # of another user
    return True


def _machine() -> str:
    """What two machines, two starts of one, or two containers do not share.

    Neither the host's name nor a pid is enough: pods of a job have the same ones each time.
    """
    words = [socket.gethostname()]
    with contextlib.suppress(OSError):  # elsewhere than on Linux
        words.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        words.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(words)
