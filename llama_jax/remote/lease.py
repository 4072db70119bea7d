"""One process at a time in a place of a bucket, where no kernel keeps a lock.

The holder writes an object on the condition that there is none, and writes it again every
`BEAT_SECONDS`, on the condition that it is still its own. A holder that is killed leaves it behind:
the next one takes it over at once if the holder was on this machine and is gone, and otherwise
when it has watched it for `SILENCE_SECONDS` without a change. One that beats on another machine may
be saving before it ends, and is waited for too. No clock is compared with another.

Amazon and Google keep such conditions. A store that does not (some emulators and old gateways) has
the last writer win: then each reads what it wrote again, and most races are found, not all.
"""

import json
import os
import sys
import time
import uuid

from llama_jax.remote.holder import (
    PATIENCE_SECONDS,
    InUseError,
    describe_self,
    lives_here,
    name_of,
    parse,
)
from llama_jax.remote.mirror import LEASE
from llama_jax.remote.objects import Objects, StorageError

BEAT_SECONDS = 20.0
SILENCE_SECONDS = 90.0
_LOOK_SECONDS = 5.0


class Lease:
    """The right to write to a place of a bucket.

    Args:
        objects: Of the place.
        silence_seconds: After which a holder that does not beat is taken to be dead.

    Raises:
        ValueError: If another process of this machine holds it, and lives.
        InUseError: If a process of another machine holds it and goes on.
        StorageError: If the bucket cannot be written.
    """

    def __init__(self, objects: Objects, *, silence_seconds: float = SILENCE_SECONDS):
        self._objects, self._beats, self._token = objects, 0, uuid.uuid4().hex
        self._self = describe_self()
        self._wait(silence_seconds)
        self._generation = objects.generation(LEASE)
        self.renew()

    def renew(self) -> None:
        """Says that this process still holds it.

        Raises:
            StorageError: If another process has taken it, or the bucket cannot be written.
        """
        self._beats += 1
        content = self._self | {"beats": self._beats, "token": self._token}
        text = json.dumps(content).encode()
        written = self._objects.replace(LEASE, text, self._generation)
        found = parse(self._objects.read(LEASE))
        if found.get("token") != self._token:
            raise StorageError(f"{self._objects.url} was taken by {name_of(found)}; this one ends.")
        # An answer that was lost: the object is ours, of a generation that we were not told.
        self._generation = written or self._objects.generation(LEASE)

    def release(self) -> None:
        """Lets the next process in, if this one still holds it."""
        self._objects.replace(LEASE, None, self._generation)

    def _wait(self, silence_seconds: float) -> None:
        """Until the place is free, or its holder is known to be dead."""
        began = time.monotonic()
        last, heard = None, began
        while (held := self._objects.read(LEASE)) is not None:
            now, holder = time.monotonic(), parse(held)
            lives = lives_here(holder)
            # The number of a process that is gone may be ours now.
            if lives is False or (lives and holder["pid"] == os.getpid()):
                return
            where = f"run_dir={self._objects.url} is in use by {name_of(holder)}"
            if lives:
                raise ValueError(f"{where}. Wait for it, stop it, or name another folder.")
            if last is None:
                print(f"llama-jax: {where}; waiting for it", file=sys.stderr)
            if held != last:
                last, heard = held, now
            if now - heard >= silence_seconds:
                return
            if now - began >= PATIENCE_SECONDS:
                raise InUseError(f"{where}, which goes on.")
            time.sleep(min(_LOOK_SECONDS, silence_seconds))
