"""Where the wall time of a run went, over all its starts, deaths included.

    clock = WorkClock()                                  # one lap after another, no time between
    clock.lap("compile")                                 # all since the last lap was that
    log = GoodputLog(run_dir / NAME, clock, step=resumed_at, write=True)
    log.note(step)                                       # often; a death loses what came after
    log.total()  -> WallTime
    read_goodput(run_dir / NAME) -> WallTime             # of a run that is running, dead or done

`goodput.jsonl` is only ever appended to: a start notes when it began and after which update, then
its seconds of each kind so far. What a later start does again was in vain: its time is "repeated".
"""

import dataclasses
import json
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

NAME = "goodput.jsonl"
KINDS = {
    "start_up": "start-up",
    "compile": "compilation",
    "steps": "steps",
    "data_wait": "waiting for data",
    "checkpoint": "checkpoints",
    "evaluation": "evaluation",
    "repeated": "lost: made again",
    "down": "lost: down",
}
# What an update and its checkpoint cost, and is lost where the update is made again.
_WORK = ("steps", "data_wait", "checkpoint", "evaluation")
_COMPLETE = "complete"
# From the beginning of a process to the first line of its program.
_LONGEST_START_SECONDS = 600.0


def process_began() -> float:
    """When this process began, by `time.monotonic`; where Linux is not there to ask, now."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, ValueError, IndexError):
        age = 0.0
    # Containers may have another time since the boot than the kernel.
    return time.monotonic() - (age if 0.0 <= age < _LONGEST_START_SECONDS else 0.0)


class WorkClock:
    """Seconds of this process by kind; every moment since it was made belongs to one kind.

    Attributes:
        seconds: By kind, until the last lap.
        data_seconds: Of them, waiting for the loader, whether the devices had work meanwhile or
            not.
        device_seconds: Of them, waiting for the devices.

    Args:
        began: When the first lap began, by `time.monotonic`; now by default.
    """

    def __init__(self, began: float | None = None) -> None:
        self.seconds = dict.fromkeys(KINDS, 0.0)
        self.data_seconds = self.device_seconds = 0.0
        # Monotonic: a wall clock that is set must not make work of it.
        self._last = time.monotonic() if began is None else began

    def lap(self, kind: str) -> float:
        """Counts the time since the last lap as `kind`, and returns it."""
        now = time.monotonic()
        lap, self._last = now - self._last, now
        self.seconds[kind] += lap
        return lap

    @property
    def total(self) -> float:
        """Seconds until the last lap."""
        return sum(self.seconds.values())

    @property
    def elapsed(self) -> float:
        """Seconds until now."""
        return self.total + time.monotonic() - self._last

    @property
    def training(self) -> float:
        """Seconds so far of what training would take without evaluation and starts."""
        return sum(self.seconds[kind] for kind in ("steps", "data_wait", "checkpoint"))


@dataclasses.dataclass(frozen=True, slots=True)
class WallTime:
    """Seconds of each kind; they add up to the wall time from the first start to the last note.

    Attributes:
        seconds: By kind, those of `KINDS`.
    """

    seconds: dict[str, float]

    @property
    def total(self) -> float:
        """Wall time."""
        return sum(self.seconds.values())

    @property
    def goodput(self) -> float:
        """Share of the wall time in which updates were made that count, in [0, 1].

        Source: "productive time" of ML Productivity Goodput (Google Cloud, 2024), without its
        factor for MFU, which is reported beside.
        """
        return self.seconds["steps"] / self.total if self.total else 0.0

    def metrics(self) -> dict[str, float]:
        """The same for the metric writers."""
        return {"goodput": self.goodput} | {
            f"wall_seconds/{kind}": seconds for kind, seconds in self.seconds.items()
        }

    def __str__(self) -> str:
        shares = ", ".join(
            f"{name} {self.seconds[kind] / self.total:.1%}"
            for kind, name in KINDS.items()
            if self.seconds[kind] and kind != "steps"
        )
        return f"{self.total:,.1f} s, goodput {self.goodput:.1%}" + (shares and f"; {shares}")


@dataclasses.dataclass(frozen=True, slots=True)
class Start:
    """One start of a run.

    Attributes:
        time: When it began, in seconds since 1970.
        step: Updates made before it.
        down_seconds: Between it and the last note of the start before; 0 for the first, and after
            a run that was complete.
        end: "complete", "stopped", "rewound", or empty for one that died or goes on; "crash loop"
            or "given up" where somebody was told that it died.
        last_step: Of its last note.
        last_time: When that was.
    """

    time: float
    step: int
    down_seconds: float
    end: str
    last_step: int
    last_time: float


class GoodputLog:
    """Keeps the account of a run on file; what earlier starts spent is in it.

    Args:
        path: Of `goodput.jsonl`.
        clock: Of this process, made when it began.
        step: Updates made before it.
        write: Whether this process writes; of several, one does.
    """

    def __init__(self, path: Path, clock: WorkClock, *, step: int, write: bool):
        self._path, self._clock, self._write = path, clock, write
        began = time.time() - clock.elapsed
        start = {"start": True, "time": round(began, 3), "step": step, "seconds": {}}
        self._before = _add_up([*_read(path), start])[0]
        self._append(start, before="\n")  # the line before may be half of one

    def note(self, step: int, *, end: str = "") -> None:
        """Notes how the time was spent until now.

        Args:
            step: Updates made so far.
            end: "complete", "stopped" or "rewound" where this start is about to end.
        """
        seconds = {kind: round(s, 4) for kind, s in self._clock.seconds.items() if s}
        record = {"time": round(time.time(), 3), "step": step, "seconds": seconds}
        self._append(record | ({"end": end} if end else {}))

    def total(self) -> WallTime:
        """Of all starts, until now."""
        return WallTime({kind: self._before[kind] + s for kind, s in self._clock.seconds.items()})

    def _append(self, record: dict[str, Any], *, before: str = "") -> None:
        if self._write:
            _append(self._path, record, before=before)


def close_start(path: Path, end: str) -> None:
    """Notes of the last start, which died, what its end was part of; changes no time."""
    records = _read(path)
    if records:
        last = {**records[-1], "end": end}
        last.pop("start", None)
        _append(path, last, before="\n")


def read_goodput(path: Path) -> WallTime:
    """Of a run, until its last note; nothing where there is no file."""
    return WallTime(_add_up(_read(path))[0])


def read_starts(path: Path) -> list[Start]:
    """All starts of a run, in order."""
    return _add_up(_read(path))[1]


def _append(path: Path, record: dict[str, Any], *, before: str = "") -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{before}{json.dumps(record)}\n")


def _read(path: Path) -> list[dict[str, Any]]:
    """Records of the file; a line that a death cut short is left out."""
    records = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and {"time", "step", "seconds"} <= record.keys():
            records.append(record)
    return records


def _add_up(records: Iterable[dict[str, Any]]) -> tuple[dict[str, float], list[Start]]:
    total = dict.fromkeys(KINDS, 0.0)
    starts: list[Start] = []
    spent: list[tuple[int, dict[str, float]]] = []  # by the update after which it was noted
    for record, before in _with_last(records):
        if record.get("start"):
            down = 0.0
            if starts and starts[-1].end != _COMPLETE:
                # Clocks of two machines may differ.
                down = max(record["time"] - starts[-1].last_time, 0.0)
            total["down"] += down
            _repeat(total, spent, record["step"])
            starts.append(
                Start(record["time"], record["step"], down, "", record["step"], record["time"])
            )
        elif starts:
            lap = {k: s - before.get(k, 0.0) for k, s in record["seconds"].items() if k in total}
            for kind, seconds in lap.items():
                total[kind] += seconds
            spent.append((record["step"], lap))
            starts[-1] = dataclasses.replace(
                starts[-1],
                last_step=record["step"],
                last_time=record["time"],
                end=record.get("end", ""),
            )
    return total, starts


def _with_last(
    records: Iterable[dict[str, Any]],
) -> Iterator[tuple[dict[str, Any], dict[str, float]]]:
    last: dict[str, float] = {}
    for record in records:
        yield record, last
        last = record["seconds"]


def _repeat(total: dict[str, float], spent: list[tuple[int, dict[str, float]]], step: int) -> None:
    """Counts as lost what was spent on updates after `step`, which are made again."""
    for _, lap in (entry for entry in spent if entry[0] > step):
        for kind in _WORK:
            seconds = lap.get(kind, 0.0)
            total[kind] -= seconds
            total["repeated"] += seconds
    spent[:] = [entry for entry in spent if entry[0] <= step]
