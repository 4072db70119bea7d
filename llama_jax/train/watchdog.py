"""Ends a process that hangs, with its stacks told, so that it is started again.

with Watchdog(run_dir, config.guards, hosts) as watchdog:    # the start is expected to end
    watchdog.expect(11, "update 12")                         # until the next `expect`
"""

import contextlib
import faulthandler
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import jax

from llama_jax.config import GuardConfig
from llama_jax.observe import incidents
from llama_jax.train.deadline import UpdateDeadline
from llama_jax.train.hosts import Hosts
from llama_jax.train.processes import hear_a_refusal
from llama_jax.train.roll_call import RollCall

_TICKS = 20
_LONGEST_TICK_SECONDS = 10.0
_PATIENCE_SECONDS = 10.0
_LISTEN_SECONDS = 1.0
_START = "the start"
# Of the timer without Python, which is to be late where the thread can run.
_LATE_TICKS = 3
# For what is told before the end: the disk may be what hangs.
_LAST_WORDS_SECONDS = 120.0


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
    matter, and neither does time in which the process was stopped or its machine asleep. Where
    something holds Python's lock and the thread cannot run, a timer without Python ends the
    process. That one reads a clock, so that a process that was stopped for longer than its
    deadline is ended too.

    Args:
        run_dir: Folder of the run.
        config: Its deadlines.
        hosts: The other processes.
        store: Keeps files of the folder where more than this machine has them.
    """

    def __init__(
        self,
        run_dir: Path,
        config: GuardConfig,
        hosts: Hosts,
        store: Callable[[Sequence[Path]], None] = lambda paths: None,
    ):
        self._run_dir, self._config, self._hosts, self._store = run_dir, config, hosts, store
        self._roll_call = RollCall(run_dir, hosts)
        self._closed = threading.Event()
        self._update_deadline = UpdateDeadline(config)
        self._in_update, self._since = False, 0.0
        self._starting = True
        self.expect(0, _START, long=True)

    def expect(self, step: int, what: str, *, long: bool = False) -> None:
        """From now on, and until this is called again, `what` is to end within its deadline.

        Args:
            step: Updates made.
            what: As in "update 12".
            long: Whether it is no mere update.
        """
        now = time.monotonic()
        if self._in_update:
            self._update_deadline.see(now - self._since)
        self._in_update, self._since, self._starting = not long, now, what == _START
        within = self._config.other_deadline_seconds if long else self._update_deadline.seconds
        # Once an update: no lock, no thread is woken; the new object alone tells of the change.
        self._task = _Task(step, what, within)

    def expect_last_save(self, step: int) -> None:
        """From now on, all that is left to do before a stop is to end within its deadline."""
        self.expect(step, f"checkpoint {step:,}, the last before a stop,", long=True)
        self._task = self._task._replace(within_seconds=self._config.stop_deadline_seconds)

    def __enter__(self) -> Self:
        works = [self._watch]
        if jax.process_count() > 1:
            works += [self._pulse, self._listen]
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
        try:
            while not self._closed.wait(tick := self._task.tick_seconds):
                if self._task is not task:
                    task, waited = self._task, 0.0
                else:
                    waited += tick
                if 0 < task.within_seconds <= waited:
                    _end_without_python(_LAST_WORDS_SECONDS)
                    self._end(task)
                left = task.within_seconds - waited + _LATE_TICKS * task.tick_seconds
                _end_without_python(left if task.within_seconds else 0.0)
        finally:
            _end_without_python(0.0)

    def _pulse(self) -> None:
        """Tells the others that this process lives, whatever its main thread does."""
        while not self._closed.wait((task := self._task).tick_seconds):
            self._roll_call.beat(task.step, task.what, task.tick_seconds)

    def _listen(self) -> None:
        """Ends this process where another one refuses to start, and this one may wait for it."""
        while not self._closed.wait(_LISTEN_SECONDS):
            with contextlib.suppress(jax.errors.JaxRuntimeError):  # the first process has ended
                if self._starting:
                    hear_a_refusal(self._hosts)

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
            what = f"{text}; stacks in {path.name}"
            told = incidents.note(
                self._run_dir, "hang", task.step, what, process=jax.process_index()
            )
            self._store([path, told])
        finally:  # a full disk must not keep the process either
            os._exit(1)

    def _find_silent(self, task: _Task) -> str:
        """The processes that did not tell that they live while this one waited for them to."""
        if jax.process_count() == 1:
            return ""
        answers: list[dict[int, int]] = []

        def ask_twice() -> None:
            answers.append(self._roll_call.beats())
            threading.Event().wait(4 * task.tick_seconds)
            answers.append(self._roll_call.beats())

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


def _end_without_python(seconds: float) -> None:
    """Has a timer dump all stacks and end the process, unless it is set anew; 0 stops it."""
    if seconds:
        faulthandler.dump_traceback_later(seconds, exit=True, file=2)
    else:
        faulthandler.cancel_dump_traceback_later()
