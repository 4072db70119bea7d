"""What a launch writes down, so that another command can look at it, stop it or start it again."""

import contextlib
import dataclasses
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from llama_jax.atomic import write_atomically

NAME = "launch.json"
LOGS = "logs"
_LOCK = "launch.lock"
# A disk on a network keeps the locks of a host that died for a while.
_PATIENCE_SECONDS = 120.0
_TAIL_BYTES = 1 << 16


@dataclasses.dataclass(kw_only=True)
class LaunchState:
    """The launch of one run.

    Attributes:
        platform: Such as "local".
        name: Of the run.
        run_dir: Folder of the run, as its processes see it.
        argv: Of `llama-jax launch`, which started it and starts it again.
        folder: Where that was.
        job: Number of the platform's job, where it gives one.
        commands: Of platforms with tools of their own: what looks at it, follows it, stops it.
        host: On which the launcher runs, where it stays.
        pid: Of the launcher.
        phase: "running", "waiting" for the next attempt, "stopping", "done", "stopped" or "failed";
            "submitted" where a platform took over.
        attempt: From 1.
        workers: Of this attempt: index, pid and log.
        logs: Of processes that the launcher does not start itself.
        incidents: What went wrong so far: time, attempt, what and step.
        started: Unix time of the first attempt.
    """

    platform: str
    name: str
    run_dir: str
    argv: list[str]
    folder: str = dataclasses.field(default_factory=os.getcwd)
    job: str = ""
    commands: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    host: str = dataclasses.field(default_factory=socket.gethostname)
    pid: int = 0
    phase: str = "running"
    attempt: int = 0
    workers: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    logs: list[str] = dataclasses.field(default_factory=list)
    incidents: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    started: float = dataclasses.field(default_factory=time.time)

    def save(self, folder: Path) -> None:
        """Writes it into a run's folder."""
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / NAME, json.dumps(dataclasses.asdict(self), indent=2) + "\n")

    def go_on(self, folder: Path) -> None:
        """Takes over what launches of the run before this one left there: attempts, incidents."""
        if (folder / NAME).is_file():
            former = self.load(folder)
            self.attempt, self.started = former.attempt, former.started
            self.incidents = former.incidents

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Reads what `save` wrote."""
        return cls(**json.loads((folder / NAME).read_text(encoding="utf-8")))


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Makes this process the one launcher of a run; the kernel lets go, however the process ends.

    Raises:
        ValueError: If there is another one, named by pid and host.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("a") as file:
        until = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                other = LaunchState.load(folder) if (folder / NAME).is_file() else None
                elsewhere = other is not None and other.host != socket.gethostname()
                if not elsewhere or time.monotonic() >= until:
                    by = f"pid {other.pid} on {other.host}" if other else "another process"
                    raise ValueError(
                        f"run_dir={folder} is launched already, by {by}, which keeps it going: "
                        f"`llama-jax launch status {folder}` shows it, `launch stop` ends it."
                    ) from None
            time.sleep(1)
        yield


def find_launch(name: str) -> Path:
    """The folder of a launch: `name` itself, or below runs/.

    Raises:
        ValueError: If nothing was launched there.
    """
    folders = (Path(name), Path("runs") / name)
    for folder in folders:
        if (folder / NAME).is_file():
            return folder
    known = sorted(path.parent.name for path in Path("runs").glob(f"*/{NAME}"))
    hint = f"There are: {', '.join(known)}." if known else "Nothing was launched from here yet."
    raise ValueError(f"NAME={name!r} has no {NAME}, neither in {folders[0]} nor below runs. {hint}")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """How far a run is, by what lies in its folder.

    Attributes:
        step: Last step in metrics.jsonl; 0 where there is none.
        seconds_silent: Since the last line of it; None where there is none.
        checkpoint: Newest complete checkpoint, or None.
    """

    step: int
    seconds_silent: float | None
    checkpoint: int | None


def standing_of(run_dir: Path) -> Standing:
    """Reads how far a run is, in no more time for a long run than for a short one."""
    step, silent = 0, None
    metrics = run_dir / "metrics.jsonl"
    if metrics.is_file():
        silent = max(0.0, time.time() - metrics.stat().st_mtime)
        for line in reversed(_tail(metrics).splitlines()):
            try:
                step = int(json.loads(line)["step"])
                break
            except (ValueError, KeyError, TypeError):
                continue  # torn by a kill, or by where the tail begins
    checkpoints = run_dir / "checkpoints"
    steps = checkpoints.iterdir() if checkpoints.is_dir() else ()
    newest = max((int(path.name) for path in steps if path.name.isdecimal()), default=None)
    return Standing(step=step, seconds_silent=silent, checkpoint=newest)


def last_lines(log: Path, count: int) -> list[str]:
    """The last lines of a log."""
    return _tail(log).splitlines()[-count:] if log.is_file() else []


def _tail(path: Path) -> str:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _TAIL_BYTES))
        return file.read().decode(errors="replace")


def process_state(pid: int) -> str:
    """ "running", "stopped" (by SIGSTOP, say), or "gone"; "running" where Linux is not there."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "gone" if Path("/proc/self/stat").exists() else "running"
    return {"T": "stopped", "t": "stopped", "Z": "gone", "X": "gone"}.get(state, "running")
