"""Keeps the processes of a run going on one machine: starts, watches, stops and starts again."""

import contextlib
import ctypes
import dataclasses
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType

from llama_jax.cli.launch.restarts import (
    DONE,
    PREEMPTED,
    Decision,
    Ending,
    Restarts,
    find_cause,
)
from llama_jax.cli.launch.state import (
    LOGS,
    LaunchState,
    held,
    last_lines,
    process_state,
    standing_of,
)
from llama_jax.observe.goodput import NAME as GOODPUT
from llama_jax.observe.goodput import close_start, read_starts

_POLL_SECONDS = 0.05
# The others of a run in which one failed by itself are failing too, and say why.
_SETTLE_SECONDS = 5.0
_LINES_SHOWN = 40
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
# Opened before any fork: between fork and exec, a lock of another thread may be held for ever.
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
    """One process to start.

    Attributes:
        argv: Program and arguments.
        environment: Added to the launcher's own.
    """

    argv: Sequence[str]
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(kw_only=True)
class _Worker:
    """One started process and its log."""

    index: int
    process: subprocess.Popen[bytes]
    log: Path


class Supervisor:
    """Runs all processes of a run until it is done, stopped or given up.

    Args:
        state: Of the launch; kept up to date in `run_dir`.
        run_dir: Folder of the run.
        commands: Gives the processes of an attempt; asked anew for each.
        max_restarts: Crashes after which the run is given up.
        stop_seconds: How long processes that were asked to stop may take to save.
        restart_preempted: Whether exit code 75 starts the run again here; otherwise it ends it.
    """

    def __init__(
        self,
        state: LaunchState,
        run_dir: Path,
        commands: Callable[[], Sequence[Command]],
        *,
        max_restarts: int,
        stop_seconds: float,
        restart_preempted: bool = True,
    ):
        self._state = state
        self._run_dir = run_dir
        self._commands = commands
        self._stop_seconds = stop_seconds
        self._restart_preempted = restart_preempted
        self._restarts = Restarts(max_restarts, standing_of(run_dir).step)
        self._signals = 0
        self._workers: list[_Worker] = []
        self._left: list[str] = []
        self._shown = 0
        self._starts = 0

    def run(self) -> int:
        """Runs to the end; returns the exit code of the launcher.

        Raises:
            ValueError: If another launcher keeps the run going.
        """
        with held(self._run_dir), self._listening():
            self._state.go_on(self._run_dir)
            self._state.host, self._state.pid = socket.gethostname(), os.getpid()
            while True:
                self._start()
                ending = self._watch()
                decision = self._decide(ending)
                if ending.kind != "done" and decision.code != PREEMPTED:
                    self._note(ending)
                if decision.again:
                    self._wait(decision.wait_seconds)
                    if not self._signals:
                        continue
                    decision = _when_asked(ending)
                return self._end(decision, ending)

    def _decide(self, ending: Ending) -> Decision:
        """What follows an ending, where the platform and who asked to stop have their say."""
        if ending.kind == "preempted" and (self._signals or not self._restart_preempted):
            return Decision(again=False, code=PREEMPTED)
        decision = self._restarts.after(ending)
        return _when_asked(ending) if decision.again and self._signals else decision

    def _start(self) -> None:
        state, folder = self._state, self._run_dir / LOGS
        folder.mkdir(parents=True, exist_ok=True)
        state.attempt += 1
        self._starts = len(read_starts(self._run_dir / GOODPUT))
        since = time.strftime("%Y-%m-%d %H:%M:%S %z")
        self._workers = []
        for index, command in enumerate(self._commands()):
            log = folder / f"process-{index}.log"
            with log.open("ab") as file:
                file.write(f"--- attempt {state.attempt}, {since}\n".encode())
                if index == 0:
                    self._shown = file.tell()
                process = subprocess.Popen(  # noqa: S603 (our own command)
                    command.argv,
                    env={**os.environ, **command.environment},
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=file,
                    start_new_session=True,  # Ctrl-C is for the launcher, which passes it on once
                    preexec_fn=_end_with_launcher,
                )
            self._workers.append(_Worker(index=index, process=process, log=log))
        state.workers = [
            {"index": w.index, "pid": w.process.pid, "log": str(w.log)} for w in self._workers
        ]
        self._save("running")

    def _watch(self) -> Ending:
        """Waits until all have ended, and makes them end where one has failed."""
        codes: dict[int, int] = {}
        deadline, passed_on = float("inf"), 0
        while len(codes) < len(self._workers):
            for worker in self._workers:
                code = None if worker.index in codes else worker.process.poll()
                if code is not None:
                    codes[worker.index] = code
                    deadline = min(deadline, time.monotonic() + self._patience(code))
            if self._signals > passed_on:
                passed_on = self._signals
                self._pass_on(codes)
                allowed = self._stop_seconds if passed_on == 1 else 0.0
                deadline = min(deadline, time.monotonic() + allowed)
            if time.monotonic() >= deadline:
                break
            self._show()
            time.sleep(_POLL_SECONDS)
        first = find_cause(codes)
        self._kill(codes)
        self._show()
        starts = read_starts(self._run_dir / GOODPUT)
        return Ending(
            codes=codes,
            first=first,
            step=standing_of(self._run_dir).step,
            saved=len(starts) > self._starts and starts[-1].end == "stopped",
        )

    def _patience(self, code: int) -> float:
        """Seconds that the others have after one ended."""
        if code in (DONE, PREEMPTED):
            return self._stop_seconds
        return 0.0 if code == -signal.SIGKILL and not self._signals else _SETTLE_SECONDS

    def _pass_on(self, codes: Mapping[int, int]) -> None:
        self._save("stopping")
        print(
            f"launch: stopping {self._state.name}; up to {self._stop_seconds:.0f} s to save "
            "(a second signal kills)",
            file=sys.stderr,
        )
        for worker in self._workers:
            if worker.index not in codes:
                worker.process.send_signal(signal.SIGTERM)

    def _kill(self, codes: dict[int, int]) -> None:
        """Ends those without a code yet, and gives them one."""
        left = [worker for worker in self._workers if worker.index not in codes]
        # One that was stopped or hung is why the others failed: it is named.
        states = [(w.index, process_state(w.process.pid)) for w in left]
        self._left = [f"process {i} was still {state}" for i, state in states if state != "gone"]
        for worker in left:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(worker.process.pid, signal.SIGKILL)
            codes[worker.index] = worker.process.wait()

    def _note(self, ending: Ending) -> None:
        """Keeps what went wrong."""
        what = "; ".join([str(ending), *self._left])
        print(f"launch: attempt {self._state.attempt}: {what}", file=sys.stderr)
        self._state.incidents.append(
            {
                "time": time.time(),
                "attempt": self._state.attempt,
                "what": what,
                "step": ending.step,
                "codes": {str(index): code for index, code in ending.codes.items()},
            }
        )

    def _explain(self, ending: Ending, why: str) -> None:
        log = self._workers[ending.first].log
        print(f"launch: given up: {why}. Last lines of {log}:", file=sys.stderr)
        for line in last_lines(log, _LINES_SHOWN):
            print(f"  {line}", file=sys.stderr)
        # Whoever starts the run after this has been told, and `train` need not tell again.
        close_start(self._run_dir / GOODPUT, "given up")

    def _wait(self, seconds: float) -> None:
        """Until the next attempt, or a signal."""
        self._save("waiting")
        if seconds:
            print(f"launch: starting again in {seconds:.0f} s", file=sys.stderr)
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._signals:
            time.sleep(_POLL_SECONDS)

    def _end(self, decision: Decision, ending: Ending) -> int:
        if decision.why:
            self._explain(ending, decision.why)
        phase = {DONE: "done", PREEMPTED: "stopped"}.get(decision.code, "failed")
        standing = standing_of(self._run_dir)
        saved = "no checkpoint" if standing.checkpoint is None else f"{standing.checkpoint:,}"
        print(f"launch: {phase}: {ending}; newest checkpoint: {saved}", file=sys.stderr)
        self._save(phase)
        return decision.code

    def _save(self, phase: str) -> None:
        self._state.phase = phase
        self._state.save(self._run_dir)

    def _show(self) -> None:
        """Passes on what the first process says."""
        with self._workers[0].log.open("rb") as file:
            file.seek(self._shown)
            news = file.read()
        self._shown += len(news)
        if news:
            sys.stderr.write(news.decode(errors="replace"))
            sys.stderr.flush()

    @contextlib.contextmanager
    def _listening(self) -> Iterator[None]:
        def note(number: int, frame: FrameType | None) -> None:
            del number, frame
            self._signals += 1

        numbers = (signal.SIGTERM, signal.SIGINT)
        previous = {number: signal.signal(number, note) for number in numbers}
        try:
            yield
        finally:
            self._kill({w.index: 0 for w in self._workers if w.process.poll() is not None})
            for number, handler in previous.items():
                signal.signal(number, handler)


def _when_asked(ending: Ending) -> Decision:
    """What follows where the launcher was asked to stop: 75 says that the run saved."""
    if ending.kind == "preempted":
        return Decision(again=False, code=PREEMPTED)
    why = "it was asked to stop, and did not end by saving"
    return Decision(again=False, code=1, why=why)


def _end_with_launcher() -> None:
    """Has Linux stop a process whose launcher was killed; it saves, and lets go of its folder."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
