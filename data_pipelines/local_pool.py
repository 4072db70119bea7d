"""Runs tasks in processes of this machine; survives their deaths, and does not survive its own."""

import collections
import concurrent.futures
import ctypes
import fcntl
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import sharedctypes
from pathlib import Path
from typing import Any

from .engine import Task, TaskFailedError, run_task

_ATTEMPTS = 3
_POLL_SECONDS = 0.1
_LOCK = ".workers.lock"

# Of a worker: what it was given when it started.
_done_bytes: Any = None
_lock: Any = None


class LocalPool:
    """An `Executor` of several processes.

    A task whose process dies is run again, twice at most.

    Args:
        num_workers: Processes.
    """

    def __init__(self, num_workers: int):
        self._num_workers = num_workers

    def __call__(
        self, tasks: Sequence[tuple[Task, str]], work: Path, progress: Callable[[str, int], None]
    ) -> None:
        """See `Executor`."""
        if not tasks:
            return
        work.mkdir(parents=True, exist_ok=True)
        _wait_for_orphans(work)
        deaths: collections.Counter[str] = collections.Counter()
        while tasks:
            tasks = self._run(tasks, work, progress)
            # A process can die of its task, for lack of memory, or by somebody's hand.
            started = [task for task, _ in tasks if _partial(work, task).exists()]
            deaths.update(task.name for task in started)
            for task in started:
                shutil.rmtree(_partial(work, task), ignore_errors=True)
                if deaths[task.name] == _ATTEMPTS:
                    raise TaskFailedError(
                        f"{task.name}: the process at work on it died {_ATTEMPTS} times; killed "
                        "for lack of memory, perhaps: try fewer --workers. What is done is kept; "
                        "run the build again to go on."
                    )

    def _run(
        self, tasks: Sequence[tuple[Task, str]], work: Path, progress: Callable[[str, int], None]
    ) -> list[tuple[Task, str]]:
        """Tasks that are left when a process has died; none if all are done."""
        # A counter for each task, written by one process: a queue's lock would die with its holder.
        counters = sharedctypes.RawArray(ctypes.c_int64, len(tasks))
        told = [0] * len(tasks)

        def tell() -> None:
            for index, (task, _) in enumerate(tasks):
                if new := counters[index] - told[index]:
                    told[index] += new
                    progress(task.name, new)

        pool = concurrent.futures.ProcessPoolExecutor(
            max_workers=min(self._num_workers, len(tasks)),
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_start_worker,
            initargs=(counters, str(work / _LOCK), os.getpid()),
        )
        try:
            futures = {
                pool.submit(_work_on, index, task, key, work): (task, key)
                for index, (task, key) in enumerate(tasks)
            }
            waiting, left = set(futures), []
            while waiting:
                finished, waiting = concurrent.futures.wait(waiting, timeout=_POLL_SECONDS)
                tell()
                for future in finished:
                    try:
                        future.result()
                    except BrokenProcessPool:
                        left.append(futures[future])
            return left
        finally:
            processes = list((pool._processes or {}).values())
            pool.shutdown(wait=False, cancel_futures=True)
            for process in processes:
                process.kill()
            for process in processes:
                process.join()


def _start_worker(counters: Any, lock: str, parent: int) -> None:
    global _done_bytes, _lock
    # The parent is told of ^C and ends the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _done_bytes = counters
    _lock = Path(lock).open("a")  # noqa: SIM115 - held as long as the process lives
    fcntl.flock(_lock, fcntl.LOCK_SH)
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()


def _die_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL_SECONDS)
    os._exit(1)


def _wait_for_orphans(work: Path) -> None:
    """Until the workers of a build that was killed here have noticed."""
    with (work / _LOCK).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)


def _work_on(index: int, task: Task, key: str, work: Path) -> None:
    def progress(num_bytes: int) -> None:
        _done_bytes[index] += num_bytes

    run_task(task, key, work, progress)


def _partial(work: Path, task: Task) -> Path:
    return (work / task.name).with_name(f"{Path(task.name).name}.partial")
