"""Runs tasks: pure functions from files to a folder, each done once for what it is made from.

A task's folder appears whole or not at all, and says in `done.json` what it was made from: the
code, the config and the inputs. Run again, a task whose folder says the same is not run.
"""

import contextlib
import dataclasses
import errno
import functools
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from llama_jax.recipe import to_json

from .code_version import code_version
from .raw_stream import UnreadableError

DONE = "done.json"
_PARTIAL = ".partial"
Progress = Callable[[int], None]
# (config, inputs, folder to write into, progress) -> what to tell of it, as JSON
Function = Callable[[Any, tuple[Path, ...], Path, Progress], dict[str, Any]]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One call of a stage.

    Attributes:
        name: Of its folder below the work folder, such as "collect/web/00003".
        function: Top level of its module, so that another process finds it. What it does must
            follow from its arguments alone.
        config: A frozen dataclass.
        inputs: Folders of finished tasks.
        made_from: What else its result depends on: fingerprints of raw files.
        code: Modules that the function chooses to import while it runs.
        size_bytes: Of its work, for people who wait and for the order of tasks.
    """

    name: str
    function: Function
    config: Any
    inputs: tuple[Path, ...] = ()
    made_from: tuple[str, ...] = ()
    code: tuple[str, ...] = ()
    size_bytes: int = 0

    def key(self, key_of: Callable[[Path], str]) -> str:
        """SHA-256 of all that decides the result: code, config, inputs by their keys."""
        parts = [
            code_version(self.function.__module__, *self.code),
            self.function.__qualname__,
            to_json(self.config),
            *map(key_of, self.inputs),
            *self.made_from,
        ]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    """A finished task.

    Attributes:
        folder: With its files.
        result: What its function told.
    """

    folder: Path
    result: dict[str, Any]


class Listener:
    """Is told, in the process that builds, how the tasks of a step fare; this one does nothing."""

    def advanced(self, task: str, num_bytes: int) -> None:
        """A task has done so many bytes since."""

    def finished(self, task: str) -> None:
        """A task is done; what is raised here ends the step."""

    def died(self, tasks: Sequence[str]) -> None:
        """Processes at work on these have died; they are run again."""


class Executor(Protocol):
    """Calls `run_task` for each task, somewhere."""

    def __call__(self, tasks: Sequence[tuple[Task, str]], work: Path, listener: Listener) -> None:
        """Runs tasks with their keys.

        Raises:
            TaskFailedError: If one failed; the message names it.
        """
        ...


class TaskFailedError(ValueError):
    """A task that failed: which, of what, and why."""


class WorkFailedError(TaskFailedError, OSError):
    """One that failed though what was asked for was sound: run again, it may be done."""


class Engine:
    """Runs the tasks of a build below one folder.

    Args:
        work: Where tasks write; kept, it spares what has not changed.
        executor: Runs tasks that have to be run.
    """

    def __init__(self, work: Path, executor: Executor):
        self._work, self._executor = work, executor
        # A step has as many inputs as the one before it had tasks, for each of its own.
        self._keys: dict[Path, str] = {}

    def run(self, tasks: Iterable[Task], listener: Listener) -> list[Done]:
        """Runs those tasks that are not done; gives all, in their order.

        Args:
            tasks: None of which needs another one of them.
            listener: Is told how they fare, of those that are done already too.
        """
        keyed = [(task, task.key(self._keys.__getitem__)) for task in tasks]
        clear_attempts(self._work, (task for task, _ in keyed))
        missing = []
        for task, key in keyed:
            folder = self._work / task.name
            if _is_done(folder, key):
                listener.advanced(task.name, task.size_bytes)
                listener.finished(task.name)
            else:
                # Of another config.
                shutil.rmtree(folder, ignore_errors=True)
                missing.append((task, key))
        # Long ones first, so that none of them is left alone at the end.
        missing.sort(key=lambda pair: (-pair[0].size_bytes, pair[0].name))
        self._executor(missing, self._work, listener)
        # Of attempts that another one was faster than.
        clear_attempts(self._work, (task for task, _ in missing))
        self._keys |= {self._work / task.name: key for task, key in keyed}
        return [self._finished(task, key) for task, key in keyed]

    def result(self, task: str) -> dict[str, Any]:
        """What a task that is done told."""
        return _done(self._work / task)["result"]

    def _finished(self, task: Task, key: str) -> Done:
        folder = self._work / task.name
        done = _done(folder)
        if done["key"] != key:
            raise WorkFailedError(
                f"{task.name}: a worker of an earlier build is still at work in {self._work}; end "
                "it, then run the build again."
            )
        return Done(folder=folder, result=done["result"])


def run_task(task: Task, key: str, work: Path, progress: Progress) -> None:
    """Runs one task; its folder appears under its name once all is in it.

    Others may be at work on the same task, for on clusters a slow one is started twice: each writes
    into a folder of its own, and the first that is whole stays.

    Raises:
        TaskFailedError: If its function raised.
    """
    folder = work / task.name
    partial = folder.with_name(f"{folder.name}.{uuid.uuid4().hex}{_PARTIAL}")
    partial.mkdir(parents=True)
    started, cpu_started, told = time.perf_counter(), time.process_time(), 0

    def tell(num_bytes: int) -> None:
        nonlocal told
        told += num_bytes
        progress(num_bytes)

    try:
        result = task.function(task.config, task.inputs, partial, tell)
        done = {
            "key": key,
            "result": result,
            "seconds": round(time.perf_counter() - started, 3),
            "cpu_seconds": round(time.process_time() - cpu_started, 3),
        }
        (partial / DONE).write_text(json.dumps(done))
        _put_into_place(partial, folder, key)
    except Exception as error:
        # What is left of it would only fill a disk that may be full.
        shutil.rmtree(partial, ignore_errors=True)
        raise _failure(task, error, work) from error
    # Sizes are estimates, and not every stage knows how far it is.
    progress(task.size_bytes - told)


def _put_into_place(partial: Path, folder: Path, key: str) -> None:
    while True:
        try:
            partial.rename(folder)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        else:
            return
        if _is_done(folder, key):
            # Another attempt was faster, and has written the same.
            shutil.rmtree(partial, ignore_errors=True)
            return
        # Of another config, by a worker that outlived its build. Renamed, as what is being deleted
        # may have been replaced meanwhile.
        other = partial.with_name(f"{folder.name}.{uuid.uuid4().hex}{_PARTIAL}")
        with contextlib.suppress(FileNotFoundError):
            folder.rename(other)
            shutil.rmtree(other, ignore_errors=True)


def clear_attempts(work: Path, tasks: Iterable[Task]) -> set[str]:
    """Deletes what attempts at some tasks have left unfinished; gives the names of those tasks."""
    begun: set[str] = set()
    names = {task.name for task in tasks}
    for parent in {(work / name).parent for name in names}:
        for partial in parent.glob(f"*{_PARTIAL}"):
            name = partial.with_name(partial.name.rsplit(".", 2)[0]).relative_to(work).as_posix()
            if name in names:
                shutil.rmtree(partial, ignore_errors=True)
                begun.add(name)
    return begun


def _failure(task: Task, error: Exception, work: Path) -> TaskFailedError:
    # Libraries that write for us raise errors of their own, with the system's words in them.
    if any(os.strerror(number) in str(error) for number in (errno.ENOSPC, errno.EDQUOT)):
        return WorkFailedError(
            f"{task.name}: the disk of {work} is full. What is done is kept: make room and run the "
            "build again, or give it another folder with --work."
        )
    if isinstance(error, UnreadableError):
        return WorkFailedError(str(error))
    if isinstance(error, ValueError):
        return TaskFailedError(str(error))
    return WorkFailedError(f"{task.name}: {type(error).__name__}: {error}")


def in_this_process(tasks: Sequence[tuple[Task, str]], work: Path, listener: Listener) -> None:
    """Runs tasks one after the other; an `Executor`."""
    for task, key in tasks:
        run_task(task, key, work, functools.partial(listener.advanced, task.name))
        listener.finished(task.name)


def _is_done(folder: Path, key: str) -> bool:
    try:
        return _done(folder)["key"] == key
    except FileNotFoundError:
        return False


def _done(folder: Path) -> dict[str, Any]:
    return json.loads((folder / DONE).read_text())
