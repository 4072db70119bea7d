"""Who of the processes of a run lives, and what each one does: told, heard, and kept in a file."""

import contextlib
import os
import socket
import time
from pathlib import Path
from typing import Any

import jax

from llama_jax.observe.host_table import HostRow, HostTable, write_hosts
from llama_jax.train.hosts import Hosts

_SILENT_BEATS = 4


class RollCall:
    """Of all processes; a thread of each tells, and that of the first keeps what it hears.

    Args:
        run_dir: Folder of the run.
        hosts: All processes.
    """

    def __init__(self, run_dir: Path, hosts: Hosts):
        self._run_dir, self._hosts = run_dir, hosts
        self._beats = 0
        self._who = {"host": socket.gethostname(), "pid": os.getpid()}
        # Number of the last beat of each process, and when it was heard first.
        self._heard: dict[int, tuple[int, float]] = {}

    def beat(self, step: int, doing: str, every_seconds: float) -> None:
        """Tells the others that this process lives, whatever its main thread does.

        Args:
            step: Updates made.
            doing: As in "update 12".
            every_seconds: Until the next beat.
        """
        self._beats += 1
        told = self._who | {"beat": self._beats, "step": step, "doing": doing}
        self._hosts.tell("alive", told)
        if jax.process_index() == 0:
            self._keep(every_seconds)

    def beats(self) -> dict[int, int]:
        """Number of the last beat of each process."""
        return {index: told["beat"] for index, told in self._hosts.heard("alive").items()}

    def _keep(self, every_seconds: float) -> None:
        now, alive, pace = time.monotonic(), self._hosts.heard("alive"), self._hosts.heard("pace")
        rows = []
        for index, told in sorted(alive.items()):
            beat, since = self._heard.get(index, (0, now))
            self._heard[index] = beat, since = told["beat"], since if told["beat"] == beat else now
            rows.append(_row(index, told, now - since, pace.get(index, {})))
        table = HostTable(
            time=time.time(),
            silent_after_seconds=_SILENT_BEATS * every_seconds,
            slow=self._hosts.slow.why if self._hosts.slow else "",
            rows=rows,
        )
        with contextlib.suppress(OSError):  # on a full disk, say, this process lives all the same
            write_hosts(self._run_dir, table)


def _row(index: int, told: dict[str, Any], silent: float, pace: dict[str, float]) -> HostRow:
    return HostRow(
        index=index,
        host=told["host"],
        pid=told["pid"],
        step=told["step"],
        doing=told["doing"],
        silent_seconds=round(silent, 1),
        step_seconds=pace.get("step_seconds"),
        data_seconds=pace.get("data_seconds"),
        busy_seconds=pace.get("busy_seconds"),
    )
