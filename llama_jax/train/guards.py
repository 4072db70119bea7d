"""What stops a run early: updates that are not finite, and requests from outside."""

import contextlib
import math
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType

import jax
from jax.experimental import multihost_utils

from llama_jax.data.dataset import Document

_DOCUMENTS_NAMED = 20


class TrainingFailed(RuntimeError):  # noqa: N818 (an outcome of a run, not a fault of a call)
    """The run cannot go on; the message says at which step, and why."""


def document_lines(documents: Sequence[Document]) -> list[str]:
    """Documents for people, a line each, and how many more there are."""
    lines = [f"  {document.source}: {document.id}" for document in documents]
    if len(lines) > _DOCUMENTS_NAMED:
        lines[_DOCUMENTS_NAMED:] = [f"  ... and {len(lines) - _DOCUMENTS_NAMED} more"]
    return lines


class NonFiniteGuard:
    """Stops the run after too many updates in a row that were not made, and names what they read.

    Args:
        max_in_a_row: Skipped updates in a row that end the run.
        documents_of: Source documents of an update, for the message.
        before: What `seen` was when the checkpoint was saved from which the run goes on.
    """

    def __init__(
        self,
        max_in_a_row: int,
        documents_of: Callable[[int], list[Document]],
        before: Mapping[str, int] = {},
    ):
        self._in_a_row, self._skipped = before.get("in_a_row", 0), before.get("skipped", 0)
        self._max_in_a_row = max_in_a_row
        self._documents_of = documents_of

    @property
    def skipped(self) -> int:
        """Updates of the run that were not made."""
        return self._skipped

    @property
    def seen(self) -> dict[str, int]:
        """What a run that goes on from here has to know, to end where it would have ended."""
        return {"in_a_row": self._in_a_row, "skipped": self._skipped}

    def see(self, step: int, metrics: dict[str, float]) -> None:
        """Takes note of one update.

        Args:
            step: Number of the update, from 1.
            metrics: Of `make_train_step`, on the host.

        Raises:
            TrainingFailed: If it is the last of too many skipped ones.
        """
        if not metrics["skipped"]:
            self._in_a_row = 0
            return
        self._skipped += 1
        self._in_a_row += 1
        if self._in_a_row >= self._max_in_a_row:
            raise TrainingFailed(self._explain(step, metrics))

    def _explain(self, step: int, metrics: dict[str, float]) -> str:
        names = document_lines(self._documents_of(step))
        values = (metrics["loss_nats_per_token"], metrics["grad_norm"])
        what = "a spike (guards.on_spike=skip)" if all(map(math.isfinite, values)) else "not finite"
        return (
            f"step {step}: the loss ({values[0]}) or the norm of the gradient ({values[1]}) is "
            f"{what}; updates skipped in a row: {self._in_a_row} "
            f"(train.max_skipped_updates={self._max_in_a_row}). The step read these documents:\n"
            + "\n".join(names)
        )


class StopRequest:
    """Whether the run was asked to stop, as all processes agree.

    Attributes:
        name: Of what asked: "SIGTERM", "SIGINT", or "preemption" where any of several processes
            was told.
    """

    def __init__(self) -> None:
        self.name = "preemption"
        self.heard = False

    def at(self, step: int) -> bool:
        """Whether to stop now; every process gets the same answer for the same step."""
        if jax.process_count() > 1:
            # Only some hosts may have been told; JAX's service spreads the news.
            return multihost_utils.reached_preemption_sync_point(step)
        return self.heard


@contextlib.contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Turns SIGTERM and SIGINT into a request; a second signal acts as it would without us.

    Where a run has several processes, SIGTERM to any of them stops all, and SIGINT is not caught.
    """
    request = StopRequest()
    previous = {}

    def note(number: int, frame: FrameType | None) -> None:
        del frame
        request.name, request.heard = signal.Signals(number).name, True
        signal.signal(number, previous[number])

    # Among several processes JAX's service listens, which a handler of ours would make deaf.
    alone = jax.process_count() == 1
    for number in (signal.SIGTERM, signal.SIGINT) if alone else ():
        previous[number] = signal.signal(number, note)
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
