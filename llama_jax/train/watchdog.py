"""Ends a process that hangs, with its stacks told, so that it is started again.

with Watchdog(run_dir, config.guards, hosts) as watchdog:    # the start is expected to end
    watchdog.expect(11, "update 12")                         # until the next `expect`
"""

import faulthandler
import os
import socket
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import jax

from llama_jax.config import GuardConfig
from llama_jax.observe import incidents
from llama_jax.train.hosts import Hosts

_TICKS = 20
_LONGEST_TICK_SECONDS = 10.0
_PATIENCE_SECONDS = 10.0


class _Task(NamedTuple):
    step: int
    what: str
    within_seconds: float

    @property
    def tick_seconds(self) -> float:
        return min(self.within_seconds / _TICKS or _LONGEST_TICK_SECONDS, _LONGEST_TICK_SECONDS)


class Watchdog:
    """A thread that waits while the run gets on, and ends the process where it does not.

    Time is counted in waits of this thread, not read from a clock: a clock that is set does not
    matter, and neither does time in which the process was stopped or its machine asleep.

    Args:
        run_dir: Folder of the run.
        config: Its deadlines.
        hosts: The other processes.
    """

    def __init__(self, run_dir: Path, config: GuardConfig, hosts: Hosts):
        self._run_dir, self._config, self._hosts = run_dir, config, hosts
        self._closed = threading.Event()
        self.expect(0, "the start", long=True)

    def expect(self, step: int, what: str, *, long: bool = False) -> None:
        """From now on, and until this is called again, `what` is to end within its deadline.

        Args:
            step: Updates made.
            what: As in "update 12".
            long: Whether it is no mere update.
        """
        config = self._config
        within = config.other_deadline_seconds if long else config.step_deadline_seconds
        # Once an update: no lock, no thread is woken; the new object alone tells of the change.
        self._task = _Task(step, what, within)

    def __enter__(self) -> Self:
        works = (self._watch, self._pulse) if jax.process_count() > 1 else (self._watch,)
        for work in works:
            threading.Thread(target=work, name="watchdog", daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._closed.set()

    def _watch(self) -> None:
        task, waited = self._task, 0.0
        while not self._closed.wait(tick := self._task.tick_seconds):
            if self._task is not task:
                task, waited = self._task, 0.0
            else:
                waited += tick
            if 0 < task.within_seconds <= waited:
                self._end(task)

    def _pulse(self) -> None:
        """Tells the others that this process lives, whatever its main thread does."""
        beats = 0
        while not self._closed.wait(self._task.tick_seconds):
            beats += 1
            self._hosts.tell("alive", beats)

    def _end(self, task: _Task) -> None:
        process = f"process {jax.process_index()} of {jax.process_count()}"
        where = f"pid {os.getpid()} on {socket.gethostname()}"
        text = (
            f"{process} ({where}): {task.what} did not end within {task.within_seconds:g} s"
            f"{self._find_silent(task)}"
        )
        print(f"llama-jax train: hung: {text}. Stacks of all threads:", file=sys.stderr, flush=True)
        faulthandler.dump_traceback(file=2)
        try:
            folder = self._run_dir / incidents.FOLDER
            folder.mkdir(exist_ok=True)
            path = folder / f"step_{task.step}_process_{jax.process_index()}.txt"
            with path.open("w", encoding="utf-8") as file:
                file.write(f"{text}\n\n")
                file.flush()
                faulthandler.dump_traceback(file=file)
            incidents.note(self._run_dir, "hang", task.step, f"{text}; stacks in {path.name}")
        finally:  # a full disk must not keep the process either
            os._exit(1)

    def _find_silent(self, task: _Task) -> str:
        """The processes that did not tell that they live while this one waited for them to."""
        if jax.process_count() == 1:
            return ""
        answers: list[dict[int, int]] = []

        def ask_twice() -> None:
            answers.append(self._hosts.heard("alive"))
            threading.Event().wait(4 * task.tick_seconds)
            answers.append(self._hosts.heard("alive"))

        # The process that keeps the store may be the one that is silent.
        asking = threading.Thread(target=ask_twice, daemon=True)
        asking.start()
        asking.join(4 * task.tick_seconds + _PATIENCE_SECONDS)
        if len(answers) < 2:
            return "; process 0, which coordinates, does not answer"
        before, after = answers
        silent = [
            str(index)
            for index in range(jax.process_count())
            if index != jax.process_index() and after.get(index) == before.get(index)
        ]
        return f"; silent: process {', '.join(silent)}" if silent else "; all processes live"
