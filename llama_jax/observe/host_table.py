"""What each process of a run does, as the first one last heard it: `hosts.json` in its folder.

write_hosts(run_dir, table)           # every few seconds
read_hosts(run_dir) -> HostTable | None
table.news()                          # who is silent, who is slow; a line each
"""

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path

NAME = "hosts.json"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class HostRow:
    """One process.

    Attributes:
        index: Of the process.
        host: Where it runs.
        pid: There.
        step: Updates made.
        doing: What it began last, as in "update 12".
        silent_seconds: Since it was last heard to live.
        step_seconds: Of an update, over the last interval of the log; None before the first.
        data_seconds: Of them, waiting for data.
        busy_seconds: Of them, all but waiting for the devices.
    """

    index: int
    host: str
    pid: int
    step: int
    doing: str
    silent_seconds: float
    step_seconds: float | None = None
    data_seconds: float | None = None
    busy_seconds: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class HostTable:
    """All processes of a run.

    Attributes:
        time: When it was written, in seconds since 1970.
        silent_after_seconds: After which a process that is not heard is called silent.
        slow: Which process the others wait for, and why, for people; empty where none stands out.
        rows: By the number of the process.
    """

    time: float
    silent_after_seconds: float
    slow: str
    rows: Sequence[HostRow]

    def is_silent(self, row: HostRow) -> bool:
        """Whether a process has not been heard for too long."""
        return row.silent_seconds > self.silent_after_seconds

    def news(self) -> list[str]:
        """Who is silent, and who is slow."""
        silent = [
            f"silent: process {row.index} (pid {row.pid} on {row.host}) for "
            f"{row.silent_seconds:,.0f} s, in {row.doing}"
            for row in self.rows
            if self.is_silent(row)
        ]
        return silent + ([f"slow: {self.slow}"] if self.slow else [])


def write_hosts(run_dir: Path, table: HostTable) -> None:
    """Replaces the file; a reader sees the old one or the new one."""
    # Not `write_atomically`: no disk is asked to hold what is old in a few seconds.
    partial = run_dir / f"{NAME}.{os.getpid()}.partial"
    partial.write_text(json.dumps(dataclasses.asdict(table)) + "\n", encoding="utf-8")
    partial.replace(run_dir / NAME)


def read_hosts(run_dir: Path) -> HostTable | None:
    """What `write_hosts` wrote last; None where it never did, or where another version did."""
    try:
        told = json.loads((run_dir / NAME).read_text(encoding="utf-8"))
        return HostTable(**told | {"rows": [HostRow(**row) for row in told["rows"]]})
    except (OSError, ValueError, TypeError, KeyError):
        return None
