"""Whether a run that ended early is started again, and when: rules alone, no process is touched."""

import dataclasses
import signal
from collections.abc import Mapping
from typing import Literal

DONE, REFUSED, PREEMPTED = 0, 2, 75
_CRASHES_AT_A_STEP = 3
_LONGEST_WAIT_SECONDS = 60.0
# Nobody dies of SIGKILL because another failed; the end of the first process aborts the others.
_BLAME = {DONE: 0, PREEMPTED: 1, -signal.SIGABRT: 2, -signal.SIGKILL: 4}
_BLAME_OF_OTHERS = 3


def check_limits(max_restarts: int, stop_seconds: float) -> None:
    """Refuses flags of a launch that mean nothing.

    Raises:
        ValueError: Naming the flag.
    """
    if max_restarts < 0:
        raise ValueError(f"--max-restarts={max_restarts} must be zero or more.")
    if stop_seconds <= 0:
        raise ValueError(f"--stop-seconds={stop_seconds} must be positive.")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Ending:
    """How one attempt to run ended.

    Attributes:
        codes: Exit code of each process, or minus the signal that killed it.
        first: Process for whose sake the others ended; 0 where none did badly.
        step: Last step that was reported.
        saved: Whether the run noted itself that it saved and stopped. What ended it after that, as
            srun ends other tasks when the first one leaves, cost nothing.
    """

    codes: Mapping[int, int]
    first: int
    step: int
    saved: bool = False

    @property
    def kind(self) -> Literal["done", "refused", "preempted", "crashed"]:
        """What the codes say together."""
        codes = set(self.codes.values())
        if codes == {DONE}:
            return "done"
        if REFUSED in codes:
            return "refused"
        saved = self.saved or (codes and codes <= {DONE, PREEMPTED})
        return "preempted" if saved else "crashed"

    def __str__(self) -> str:
        if self.kind == "done":
            return f"done at step {self.step:,}"
        how = describe_code(self.codes.get(self.first, 1))
        return f"{self.kind}: process {self.first} {how}, after step {self.step:,}"


def find_cause(codes: Mapping[int, int]) -> int:
    """The process for whose sake the others ended; 0 where none did badly.

    Args:
        codes: Of processes that ended by themselves, in the order in which that was seen. It is
            not always the order in which they did.
    """
    return max(codes, key=lambda index: _BLAME.get(codes[index], _BLAME_OF_OTHERS), default=0)


def describe_code(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"exited with {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """What follows an ending.

    Attributes:
        again: Whether to start all processes again.
        wait_seconds: How long to wait before that.
        code: The launcher's exit code, where not.
        why: For people; empty where there is nothing to explain.
    """

    again: bool
    wait_seconds: float = 0.0
    code: int = 0
    why: str = ""


class Restarts:
    """Decides after each ending; remembers those before it.

    A crash waits a second where the run had got further than ever before; else 2, 4, up to 60. A
    preemption waits for nothing, unless the run did not get on at all.

    Attributes:
        crashes: Since the start.

    Args:
        limit: Crashes after which the run is given up.
        step: At which the run stands before the first attempt.
    """

    def __init__(self, limit: int, step: int = 0):
        self.crashes = 0
        self._limit = limit
        self._furthest = step
        self._without_progress = 0
        self._crash_step, self._at_this_step = -1, 0

    def after(self, ending: Ending) -> Decision:
        """What to do now."""
        if ending.kind == "done":
            return Decision(again=False)
        if ending.kind == "refused":
            return Decision(again=False, code=REFUSED, why="the request was wrong; see its log")
        progress, self._furthest = ending.step > self._furthest, max(ending.step, self._furthest)
        self._without_progress = 0 if progress else self._without_progress + 1
        if ending.kind == "preempted" and progress:
            return Decision(again=True)
        self.crashes += 1
        self._at_this_step = self._at_this_step + 1 if ending.step == self._crash_step else 1
        self._crash_step = ending.step
        if self._at_this_step == _CRASHES_AT_A_STEP:
            why = f"{_CRASHES_AT_A_STEP} crashes in a row after step {ending.step:,}: a crash loop"
            return Decision(again=False, code=1, why=why)
        if self.crashes > self._limit:
            why = f"--max-restarts={self._limit} are used up"
            return Decision(again=False, code=1, why=why)
        wait = min(2.0**self._without_progress, _LONGEST_WAIT_SECONDS)
        return Decision(again=True, wait_seconds=wait)
