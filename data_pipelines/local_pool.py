"""Runs tasks in processes of this machine; survives their deaths, and does not survive its own."""

import collections
import concurrent.futures
import contextlib
import ctypes
import fcntl
import multiprocessing
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import sharedctypes
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from .engine import Listener, Task, WorkFailedError, clear_attempts, run_task
from .interrupts import interrupts_held

_ATTEMPTS = 3
_POLL_SECONDS = 0.1
_LOCK = ".workers.lock"
# Steps of more tasks start new processes.
_MIN_COUNTERS = 1 << 14
# What a process is at work on before its first task.
_START = "the start of a process"
_OVER = 1

# Of a worker: what it was given when it started.
_counters: Any = None
_lock: Any = None


class LocalPool:
    """An `Executor` of several processes, which live from one step to the next.

    A task whose process dies is run again, twice at most. At the end of its `with` the processes
    end; they start with the next step of another folder, or after a failure, too.

    Args:
        num_workers: Processes.
    """

    def __init__(self, num_workers: int):
        self._num_workers = num_workers
        self._workers: _Workers | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def __call__(self, tasks: Sequence[tuple[Task, str]], work: Path, listener: Listener) -> None:
        """See `Executor`."""
        deaths: collections.Counter[str] = collections.Counter()
        while tasks:
            num_before = len(tasks)
            tasks = self._run(tasks, work, listener)
            # A process can die of its task, for lack of memory, or by somebody's hand.
            started = clear_attempts(work, (task for task, _ in tasks))
            deaths.update(started)
            if not started and len(tasks) == num_before:
                deaths[_START] += 1
            if tasks:
                listener.died(sorted(started) or [_START])
            # Those side by side die together: which one it was nobody knows.
            if worst := [name for name, count in deaths.items() if count == _ATTEMPTS]:
                raise WorkFailedError(
                    f"{' or '.join(worst)}: the process at work on it died {_ATTEMPTS} times; "
                    "killed for lack of memory, perhaps: try fewer --workers. What is done is "
                    "kept; run the build again to go on."
                )

    def _run(
        self, tasks: Sequence[tuple[Task, str]], work: Path, listener: Listener
    ) -> list[tuple[Task, str]]:
        """Tasks that are left when a process has died; none if all are done."""
        workers = self._workers_for(len(tasks), work)
        try:
            left = workers.run(tasks, listener)
        except BaseException:
            # Others are still at work.
            self._end()
            raise
        if left:
            self._end()
        return left

    def _workers_for(self, num_tasks: int, work: Path) -> "_Workers":
        workers = self._workers
        if workers is None or not workers.may_run(num_tasks, work):
            self._end()
            workers = self._workers = _Workers(self._num_workers, num_tasks, work)
        return workers

    def _end(self) -> None:
        if self._workers is not None:
            self._workers.end()
            self._workers = None


class _Workers:
    """Processes that run tasks below one folder, until one of them dies."""

    def __init__(self, num_workers: int, num_tasks: int, work: Path):
        self._work = work
        # A counter for each task, written by one process: a queue's lock would die with its holder.
        # The last one says whether they are wanted still.
        size = max(num_tasks, _MIN_COUNTERS) + 1
        self._counters = sharedctypes.RawArray(ctypes.c_int64, size)
        work.mkdir(parents=True, exist_ok=True)
        _wait_for_orphans(work)
        self._pool = concurrent.futures.ProcessPoolExecutor(
            max_workers=num_workers,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_start_worker,
            initargs=(self._counters, str(work / _LOCK), os.getpid()),
        )

    def may_run(self, num_tasks: int, work: Path) -> bool:
        """Whether they are there for so many tasks in a folder, which is still the one it was."""
        is_ours = work == self._work and (work / _LOCK).exists()
        return is_ours and num_tasks < len(self._counters)

    def run(self, tasks: Sequence[tuple[Task, str]], listener: Listener) -> list[tuple[Task, str]]:
        """Tasks that are left when a process has died; none if all are done."""
        told = [0] * len(tasks)
        self._counters[: len(tasks)] = told

        def tell() -> None:
            for index, (task, _) in enumerate(tasks):
                if new := self._counters[index] - told[index]:
                    told[index] += new
                    listener.advanced(task.name, new)

        futures = {}
        # Of an idle process that has died it says so here.
        with contextlib.suppress(BrokenProcessPool), interrupts_held():
            for index, (task, key) in enumerate(tasks):
                future = self._pool.submit(_work_on, index, task, key, self._work)
                futures[future] = (task, key)
        left = list(tasks[len(futures) :])
        waiting = set(futures)
        while waiting:
            finished, waiting = concurrent.futures.wait(waiting, timeout=_POLL_SECONDS)
            tell()
            for future in finished:
                try:
                    future.result()
                except BrokenProcessPool:
                    left.append(futures[future])
                else:
                    listener.finished(futures[future][0].name)
        return left

    def end(self) -> None:
        """Ends the processes, at work or not."""
        # One that ^C came between: started, and not among those known.
        self._counters[-1] = _OVER
        processes = list((self._pool._processes or {}).values())
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.kill()
        for process in processes:
            process.join()


def _start_worker(counters: Any, lock: str, parent: int) -> None:
    global _counters, _lock
    _counters = counters
    try:
        # Held as long as the process lives; not made, for a build may be over before its last
        # process has started, and its folder then is deleted or gone.
        _lock = Path(lock).open()  # noqa: SIM115
    except FileNotFoundError:
        os._exit(0)
    fcntl.flock(_lock, fcntl.LOCK_SH)
    # With the lock: if they are wanted now, the next build will wait for this process to end.
    if not _is_wanted(parent):
        os._exit(0)
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()


def _is_wanted(parent: int) -> bool:
    return os.getppid() == parent and _counters[-1] != _OVER


def _die_with(parent: int) -> None:
    while _is_wanted(parent):
        time.sleep(_POLL_SECONDS)
    os._exit(0)


def _wait_for_orphans(work: Path) -> None:
    """Until the workers of a build that was killed here have noticed."""
    with (work / _LOCK).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)


def _work_on(index: int, task: Task, key: str, work: Path) -> None:
    def progress(num_bytes: int) -> None:
        _counters[index] += num_bytes

    run_task(task, key, work, progress)
