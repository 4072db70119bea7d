"""Who trains the runs of a ladder: this process, or several side by side on one machine.

A small model leaves cores idle between its operations. Two processes with half of the cores each
then train two runs sooner than one with all of them trains both, one after the other.
"""

import concurrent.futures
import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from llama_jax.cli.scaling.ladder_runs import LadderRun
from llama_jax.cli.scaling.ladder_training import train_run

# Of a GPU's memory, as much as JAX takes by default, divided among the processes.
_GPU_SHARE = 0.75

_stopping = False  # of a worker that was told to stop, between two runs


class Trainer(Protocol):
    """Trains runs, so many at once."""

    at_once: int

    def submit(self, run: LadderRun, out: Path) -> concurrent.futures.Future[Any]:
        """Trains a run: its future has what `train_run` gives."""
        ...

    def stop(self) -> None:
        """Asks the runs that are being trained to save and end: they give None."""
        ...


@contextlib.contextmanager
def open_trainer(at_once: int, out: Path) -> Iterator[Trainer]:
    """A trainer of at most `at_once` runs, each with its share of this machine's cores.

    Raises:
        ValueError: If there are fewer cores than runs at once, or none are.
        RuntimeError: If one of several processes died.
    """
    cores = _cores()
    if not 1 <= at_once <= len(cores):
        raise ValueError(
            f"--at-once={at_once} must be between 1 and {len(cores)}, the cores of this machine: "
            "runs side by side take one each, or more."
        )
    if at_once == 1:
        yield _InThisProcess()
        return
    out.mkdir(parents=True, exist_ok=True)
    with _Processes(at_once, cores, out) as processes:
        yield processes


class _InThisProcess:
    at_once = 1

    def submit(self, run: LadderRun, out: Path) -> concurrent.futures.Future[Any]:
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        # Signals reach the run: training hears them itself.
        future.set_result(train_run(run, out))
        return future

    def stop(self) -> None:
        pass


class _Processes:
    """Processes that train runs, each with cores of its own."""

    def __init__(self, at_once: int, cores: list[int], out: Path):
        self.at_once = at_once
        self._stopped = False
        self._previous: dict[int, Any] = {}
        spawn = multiprocessing.get_context("spawn")
        self._pool = concurrent.futures.ProcessPoolExecutor(
            max_workers=at_once,
            mp_context=spawn,
            initializer=_start_worker,
            initargs=(spawn.Value("i"), at_once, cores, out / "log.txt"),
        )

    def __enter__(self) -> "_Processes":
        for number in (signal.SIGTERM, signal.SIGINT):
            self._previous[number] = signal.signal(number, self._hear)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.stop()
        self._pool.shutdown(wait=True, cancel_futures=True)
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def submit(self, run: LadderRun, out: Path) -> concurrent.futures.Future[Any]:
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        if self._stopped:
            future.set_result(None)
            return future
        self._pool.submit(_train, run, out).add_done_callback(
            lambda inner: self._settle(future, inner, run)
        )
        return future

    def stop(self) -> None:
        self._stopped = True
        for process in multiprocessing.active_children():
            process.terminate()

    def _settle(
        self,
        future: concurrent.futures.Future[Any],
        inner: concurrent.futures.Future[Any],
        run: LadderRun,
    ) -> None:
        if inner.cancelled():
            future.set_result(None)
        elif (failure := inner.exception()) is None:
            future.set_result(inner.result())
        elif not isinstance(failure, BrokenProcessPool):
            future.set_exception(failure)
        elif self._stopped:
            # It was told to before it could listen.
            future.set_result(None)
        else:
            future.set_exception(
                ChildProcessError(
                    f"{run.name}, or one trained beside it, lost its process: killed for lack of "
                    "memory, perhaps; try a smaller --at-once. Nothing is lost: the same command "
                    "goes on from here."
                )
            )

    def _hear(self, number: int, frame: FrameType | None) -> None:
        del frame
        # A second one acts as it would without us.
        signal.signal(number, self._previous[number])
        self.stop()


def _cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _start_worker(counter: Any, at_once: int, cores: list[int], log: Path) -> None:
    """Runs first in each process, before JAX counts the cores that it has."""
    signal.signal(signal.SIGTERM, _note_stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process passes it on
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with counter.get_lock():
        number = counter.value
        counter.value += 1
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores[number % at_once :: at_once])
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", f"{_GPU_SHARE / at_once:.3f}")
    # Two progress bars in one terminal are none.
    with log.open("a") as file:
        os.dup2(file.fileno(), 2)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)


def _train(run: LadderRun, out: Path) -> dict[str, Any] | None:
    return None if _stopping else train_run(run, out)


def _note_stop(number: int, frame: FrameType | None) -> None:
    global _stopping
    del number, frame
    _stopping = True


def _end_with_parent() -> None:
    """Ends this process when the one that started it is gone; a run survives that."""
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)
