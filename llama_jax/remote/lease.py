"""One process at a time in a place of a bucket, where no kernel keeps a lock.

The holder writes an object on the condition that there is none, and writes it again every
`BEAT_SECONDS`, on the condition that it is still its own. A holder that is killed leaves it behind:
the next one takes it over at once if the holder was on this machine and is gone, and otherwise
when it has watched it for `PATIENCE_SECONDS` without a change. No clock is compared with another.

Amazon and Google keep such conditions. A store that does not (some emulators and old gateways) has
the last writer win: then each reads what it wrote again, and most races are found, not all.
"""

import json
import os
import socket
import time
import uuid
from typing import Any

from llama_jax.remote.mirror import LEASE
from llama_jax.remote.objects import Objects, StorageError

BEAT_SECONDS = 20.0
PATIENCE_SECONDS = 90.0


class Lease:
    """The right to write to a place of a bucket.

    Args:
        objects: Of the place.
        patience_seconds: For which a silent holder is watched.

    Raises:
        ValueError: If another process holds it.
        StorageError: If the bucket cannot be written.
    """

    def __init__(self, objects: Objects, *, patience_seconds: float = PATIENCE_SECONDS):
        self._objects, self._beats, self._token = objects, 0, uuid.uuid4().hex
        self._since = time.strftime("%Y-%m-%d %H:%M:%S %z")
        held = objects.read(LEASE)
        if held is not None and not _is_gone(held):
            self._watch(held, patience_seconds)
        self._generation = objects.generation(LEASE)
        self.renew()

    def renew(self) -> None:
        """Says that this process still holds it.

        Raises:
            StorageError: If another process has taken it, or the bucket cannot be written.
        """
        self._beats += 1
        content = {"pid": os.getpid(), "host": socket.gethostname(), "beats": self._beats}
        content |= {"since": self._since, "token": self._token}
        text = json.dumps(content).encode()
        written = self._objects.replace(LEASE, text, self._generation)
        found = self._objects.read(LEASE)
        if _content(found).get("token") != self._token:
            raise StorageError(f"{self._objects.url} was taken by {_name(found)}; this one ends.")
        # An answer that was lost: the object is ours, of a generation that we were not told.
        self._generation = written or self._objects.generation(LEASE)

    def release(self) -> None:
        """Lets the next process in, if this one still holds it."""
        self._objects.replace(LEASE, None, self._generation)

    def _watch(self, held: bytes, patience_seconds: float) -> None:
        deadline = time.monotonic() + patience_seconds
        while True:
            now = self._objects.read(LEASE)
            if now is None:
                return
            if now != held:
                raise ValueError(
                    f"run_dir={self._objects.url} is in use by {_name(now)}. Wait for it, stop it, "
                    "or name another folder."
                )
            if time.monotonic() >= deadline:
                return
            time.sleep(min(5.0, patience_seconds))


def _content(held: bytes | None) -> dict[str, Any]:
    try:
        return dict(json.loads(held or b"{}"))
    except (ValueError, TypeError):
        return {}


def _name(held: bytes | None) -> str:
    content = _content(held)
    if "pid" not in content:
        return "another process"
    return f"pid {content['pid']} on {content.get('host')} since {content.get('since')}"


def _is_gone(held: bytes) -> bool:
    """Whether the holder was on this machine and is no more."""
    content = _content(held)
    if content.get("host") != socket.gethostname() or not isinstance(content.get("pid"), int):
        return False
    if content["pid"] == os.getpid():  # that number is ours now, as in a container begun again
        return True
    try:
        os.kill(content["pid"], 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
