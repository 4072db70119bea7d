"""Where a long job stands, on stderr: a live bar in a terminal, plain lines anywhere else.

    with Progress("train", total=num_steps, done=resumed_step) as progress:
        progress.advance(step)                                # often; cheap
        progress.report(step, describe(loss, throughput))     # at the log interval
        progress.say("saved checkpoint 100")                  # a line that stays

    with Progress("tokenize", total=num_documents, unit="documents") as progress:
        progress.advance(count)                               # without a terminal: every 10 s

A line reads `train 120/400 · loss 3.214 · 12,345 tok/s/chip · MFU ... · 0:41 elapsed · 1:36 left`.
"""

import collections
import sys
import time
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from llama_jax.observe.throughput import Throughput

# Lines of a job that reports nothing itself, and of one that does but has been silent.
PLAIN_INTERVAL_SECONDS = 10.0
SILENCE_SECONDS = 60.0
_RATE_WINDOW = 64


class Progress:
    """Progress of one job, from 0 to `total`.

    Args:
        label: What is being done.
        total: Where it ends; None where nobody knows.
        done: Where it starts.
        unit: Of the count, as in "400 documents"; empty to leave it out.
        file: Where to write; stderr unless given.
        live: Whether to draw a bar; by default, whether `file` is a terminal.
    """

    def __init__(
        self,
        label: str,
        *,
        total: int | None,
        done: int = 0,
        unit: str = "",
        file: IO[str] | None = None,
        live: bool | None = None,
    ):
        self._file = sys.stderr if file is None else file
        self._label, self._total, self._unit = label, total, unit
        self._done, self._status = done, ""
        self._clock = _Clock(done)
        self._last_plain = self._clock.started
        self._printed: int | None = None
        self._bar = _Bar(self._file, label, total, done) if _is_live(self._file, live) else None

    def advance(self, done: int) -> None:
        """Moves on to `done`; without a terminal, prints a line where none came for a while."""
        self._done = max(self._done, done)
        self._clock.tick(done)
        if self._bar:
            self._bar.update(self._done, self._counts(self._done), self._times(), self._status)
        elif time.monotonic() - self._last_plain >= self._patience():
            self._print_line(self._done)

    def report(self, done: int, status: str) -> None:
        """Shows the `status` that the job had at `done`; without a terminal, as a line at once.

        A status may come after the job has moved on: it then stands beside its own count.
        """
        self._status = status
        if self._bar:
            self.advance(done)
        else:
            self._done = max(self._done, done)
            self._clock.tick(done)
            self._print_line(done)

    def say(self, text: str) -> None:
        """Prints a line that stays, above the bar where there is one."""
        if self._bar:
            self._bar.say(text)
        else:
            print(text, file=self._file, flush=True)

    def close(self) -> None:
        """Leaves the last state on the screen."""
        if self._bar:
            self._bar.close()
            self._bar = None
        elif self._printed != self._done:
            self._print_line(self._done)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _patience(self) -> float:
        return SILENCE_SECONDS if self._status else PLAIN_INTERVAL_SECONDS

    def _print_line(self, done: int) -> None:
        self._last_plain = time.monotonic()
        self._printed = done
        parts = [f"{self._label} {self._counts(done)}", self._status, self._times()]
        print(" · ".join(part for part in parts if part), file=self._file, flush=True)

    def _counts(self, done: int) -> str:
        counts = f"{done:,}" if self._total is None else f"{done:,}/{self._total:,}"
        return f"{counts} {self._unit}".strip()

    def _times(self) -> str:
        elapsed = f"{human_seconds(self._clock.elapsed())} elapsed"
        left = self._clock.left(self._total)
        return elapsed if left is None else f"{elapsed} · {human_seconds(left)} left"


def describe(loss_nats_per_token: float, throughput: "Throughput | None") -> str:
    """The status of a training step: loss, and throughput with its conventions and peak."""
    loss = f"loss {loss_nats_per_token:.3f}"
    return loss if throughput is None else f"{loss} · {throughput}"


def human_seconds(seconds: float) -> str:
    """Seconds as `0:41`, `12:03`, `3:04:05` or `2d 03:04:05`."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days}d {hour:02}:{minute:02}:{second:02}"
    return f"{hour}:{minute:02}:{second:02}" if hour else f"{minute}:{second:02}"


class _Clock:
    """Time elapsed, and time left at the rate of the last ticks."""

    def __init__(self, done: int):
        self.started = time.monotonic()
        # The start is left out of the rate: the first step compiles for longer than it computes.
        self._ticks: collections.deque[tuple[float, int]] = collections.deque(maxlen=_RATE_WINDOW)
        self._last = done

    def tick(self, done: int) -> None:
        if done > self._last:
            self._ticks.append((time.monotonic(), done))
            self._last = done

    def elapsed(self) -> float:
        return time.monotonic() - self.started

    def left(self, total: int | None) -> float | None:
        if total is None or len(self._ticks) < 2:
            return None
        (first_time, first), (last_time, last) = self._ticks[0], self._ticks[-1]
        return (total - last) * (last_time - first_time) / (last - first)


def _is_live(file: IO[str], live: bool | None) -> bool:
    return file.isatty() if live is None else live


class _Bar:
    """A bar and a line of status below it, drawn by rich a few times a second."""

    def __init__(self, file: IO[str], label: str, total: int | None, done: int):
        from rich import progress
        from rich.console import Console, Group
        from rich.live import Live
        from rich.text import Text

        self._group, self._text = Group, Text
        console = Console(file=file, force_terminal=True, highlight=False)
        self._progress = progress.Progress(
            progress.TextColumn("[bold]{task.description}"),
            progress.BarColumn(bar_width=None),
            progress.TextColumn("{task.fields[counts]}"),
            progress.TextColumn("[dim]{task.fields[times]}"),
            console=console,
            expand=True,
        )
        self._task = self._progress.add_task(
            label, total=total, completed=done, counts="", times=""
        )
        # stdout is for results and stays as it is; what others print on stderr goes above the bar.
        self._live: Any = Live(
            self._progress, console=console, refresh_per_second=4, redirect_stdout=False
        )
        self._live.start()

    def update(self, done: int, counts: str, times: str, status: str) -> None:
        self._progress.update(self._task, completed=done, counts=counts, times=times)
        self._live.update(self._group(self._progress, self._text(status)))

    def say(self, text: str) -> None:
        self._live.console.print(text, markup=False)

    def close(self) -> None:
        self._live.stop()
