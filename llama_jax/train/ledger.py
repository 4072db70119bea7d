"""Numbers of every update, read late so that no device waits for the host."""

import collections
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax

from llama_jax.observe.goodput import WorkClock
from llama_jax.train.step import Metrics

# While the host reads the metrics of an update, the devices have the next one to work on.
UPDATES_AHEAD = 2


class Watcher(Protocol):
    """Sees the numbers of every update, in order and once."""

    def see(self, step: int, metrics: dict[str, float]) -> None:
        """Takes note of update `step`, counted from 1; what it raises ends the run."""


class Ledger:
    """Collects metrics of updates, shows each to the watchers, and reports at intervals.

    Args:
        watchers: See each update.
        every_steps: Updates between two reports; the last one may come after fewer.
        report: Takes the updates made so far, metrics over the interval, updates and seconds in
            it, evaluations left out. Losses are means over its tokens; norms and learning rate
            are the last update's.
        clock: Of this process.
    """

    def __init__(
        self,
        watchers: Sequence[Watcher],
        every_steps: int,
        report: Callable[[int, dict[str, float], int, float], None],
        clock: WorkClock,
    ):
        self._watchers, self._every_steps, self._report = watchers, every_steps, report
        self._pending: collections.deque[tuple[int, Metrics]] = collections.deque()
        self._newest: tuple[int, dict[str, float]] = (0, {})
        self._nats = self._tokens = 0.0
        self._updates = 0
        self._clock, self._since = clock, clock.training

    @property
    def idle(self) -> bool:
        """Whether the devices have made all updates they were given."""
        if not self._pending:
            return True
        _, newest = self._pending[-1]
        loss: Any = newest["loss_nats_per_token"]
        return loss.is_ready()

    def add(self, step: int, metrics: Metrics) -> None:
        """Takes the metrics of update `step`, counted from 1, and reads those of an earlier one.

        Raises:
            TrainingFailed: From a watcher.
        """
        for value in metrics.values():
            value.copy_to_host_async()
        self._pending.append((step, metrics))
        while len(self._pending) > UPDATES_AHEAD:
            self._read(*self._pending.popleft())

    def flush(self) -> None:
        """Reads all updates so far; waits until the devices have made them.

        Raises:
            TrainingFailed: From a watcher.
        """
        while self._pending:
            self._read(*self._pending.popleft())
        self._clock.lap("steps")

    def end(self) -> None:
        """Reads all updates, and reports those after the last report.

        Raises:
            TrainingFailed: From a watcher.
        """
        self.flush()
        if self._updates:
            self._report_interval(*self._newest)

    def _read(self, step: int, on_devices: Metrics) -> None:
        self._clock.lap("steps")
        metrics = {name: float(value) for name, value in jax.device_get(on_devices).items()}
        self._clock.device_seconds += self._clock.lap("steps")
        self._updates += 1
        if not metrics["skipped"]:
            self._nats += metrics["loss_nats_per_token"] * metrics["tokens"]
            self._tokens += metrics["tokens"]
        for watcher in self._watchers:
            watcher.see(step, metrics)
        self._newest = step, metrics
        if step % self._every_steps == 0:
            self._report_interval(step, metrics)

    def _report_interval(self, step: int, metrics: dict[str, float]) -> None:
        mean = self._nats / self._tokens if self._tokens else float("nan")
        numbers = metrics | {"loss_nats_per_token": mean}
        del numbers["skipped"], numbers["tokens"]
        self._report(step, numbers, self._updates, self._clock.training - self._since)
        self._nats, self._tokens, self._updates = 0.0, 0.0, 0
        self._since = self._clock.training
