"""Updates that are not trusted: the run goes back to before them, and may pass over their data.

`taint.json` in a run's folder lists them, oldest first. A person adds one with `llama-jax taint`,
and the run itself where it rewinds; the next start goes back to the last good checkpoint of
`since_step` or before, keeps later ones aside as `STEP.tainted`, and marks the entry as applied.
"""

import collections
import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path

from llama_jax.atomic import write_atomically
from llama_jax.config import RunConfig
from llama_jax.observe.run_directory import RunDirectory
from llama_jax.remote.objects import shown
from llama_jax.remote.run_files import read_file
from llama_jax.train.guards import TrainingFailed
from llama_jax.train.hosts import Hosts

NAME = "taint.json"


class Rewind(Exception):  # noqa: N818 (a request, not an error)
    """The run asks to go back and to pass over the data of the updates it went through.

    Attributes:
        since_step: Last update that is trusted.
        step: Last update whose data are passed over.
    """

    def __init__(self, since_step: int, step: int, reason: str):
        super().__init__(reason)
        self.since_step, self.step = since_step, step


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Taint:
    """Updates after a step that are not trusted.

    Attributes:
        since_step: Last update that is.
        passed_rows: Rows of the global order that are passed over after it.
        reason: For people.
        by: "person" or "spike".
        applied: Whether the run has gone back; from then on, updates after `since_step` are others.
    """

    since_step: int
    passed_rows: int
    reason: str
    by: str
    applied: bool = False

    def __str__(self) -> str:
        passed = f"; {self.passed_rows:,} rows are passed over" if self.passed_rows else ""
        return f"nothing after update {self.since_step:,} is trusted ({self.reason}){passed}"


def read_taints(run_dir: Path) -> list[Taint]:
    """All of a run in a folder or in a bucket, oldest first.

    Raises:
        ValueError: If the file is not what it should be.
        StorageError: If the bucket cannot be read.
    """
    content = read_file(run_dir, NAME)
    try:
        return [Taint(**entry) for entry in json.loads(content or b"[]")]
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{shown(run_dir / NAME)} cannot be read ({error}); put it right, or move it away."
        ) from None


def pending(run_dir: Path) -> Taint | None:
    """The taint of a run that trusts least, of those that its next start will apply.

    Until then the run's folder has checkpoints that are not trusted, which nobody is to read.

    Raises:
        ValueError: As `read_taints`.
        StorageError: If the bucket cannot be read.
    """
    waiting = (taint for taint in read_taints(run_dir) if not taint.applied)
    return min(waiting, key=lambda taint: taint.since_step, default=None)


def passed_rows(taints: Iterable[Taint]) -> dict[int, int]:
    """Rows that are passed over, by the number of updates made before."""
    passed: dict[int, int] = collections.defaultdict(int)
    for taint in taints:
        passed[taint.since_step] += taint.passed_rows
    return {after: rows for after, rows in passed.items() if rows}


def add_taint(run_dir: Path, taint: Taint) -> None:
    """Adds one; it is applied when the run starts the next time."""
    # Rows after an earlier place are counted from there: what later ones passed over moves.
    known = [
        dataclasses.replace(old, passed_rows=0)
        if taint.passed_rows and old.since_step > taint.since_step
        else old
        for old in read_taints(run_dir)
    ]
    _write(run_dir, [*known, taint])


def mark_applied(run_dir: Path) -> None:
    """Notes that the run stands before all tainted updates."""
    taints = read_taints(run_dir)
    if any(not taint.applied for taint in taints):
        _write(run_dir, [dataclasses.replace(taint, applied=True) for taint in taints])


def note_rewind(folder: RunDirectory, config: RunConfig, hosts: Hosts, rewind: Rewind) -> None:
    """Has the next start of a run go back to before a spike, and pass over its data.

    The first process alone reads how often that was done before, for it is the one that writes it.

    Raises:
        TrainingFailed: If the run has gone back too often; in all processes.
    """
    before = 0
    if folder.primary:
        before = sum(taint.by == "spike" for taint in read_taints(folder.path))
        if before < config.guards.max_rewinds:
            rows = rows_between(config, rewind.since_step, rewind.step)
            taint = Taint(
                since_step=rewind.since_step, passed_rows=rows, reason=str(rewind), by="spike"
            )
            add_taint(folder.path, taint)
    before = hosts.gather("rewinds", before, config.guards.other_deadline_seconds)[0]
    if before >= config.guards.max_rewinds:
        raise TrainingFailed(
            f"step {rewind.step}: {rewind}. The run has gone back {before} times "
            f"(guards.max_rewinds={config.guards.max_rewinds})."
        )


def rows_between(config: RunConfig, after: int, until: int) -> int:
    """Rows of the updates that follow `after` updates, up to `until`."""
    return config.train.rows_before(until) - config.train.rows_before(after)


def _write(run_dir: Path, taints: list[Taint]) -> None:
    write_atomically(
        run_dir / NAME, json.dumps([dataclasses.asdict(taint) for taint in taints], indent=2) + "\n"
    )
