"""Numbers of every update, read one update late so that no device waits for the host."""

import collections
import contextlib
import time
from collections.abc import Callable, Iterator

import jax

from llama_jax.train.guards import NonFiniteGuard
from llama_jax.train.step import Metrics

# While the host reads the metrics of an update, the devices have the next one to work on.
_UPDATES_AHEAD = 2


class Ledger:
    """Collects metrics of updates and reports them at intervals.

    Args:
        guard: Sees each update.
        every_steps: Updates between two reports.
        report: Takes the updates made so far, metrics over the interval, updates and seconds in
            it. Losses are means over its tokens; norms and learning rate are the last update's.
    """

    def __init__(
        self,
        guard: NonFiniteGuard,
        every_steps: int,
        report: Callable[[int, dict[str, float], int, float], None],
    ):
        self._guard, self._every_steps, self._report = guard, every_steps, report
        self._pending: collections.deque[tuple[int, Metrics]] = collections.deque()
        self._nats = self._tokens = 0.0
        self._updates = 0
        self._since = time.monotonic()

    def add(self, step: int, metrics: Metrics) -> None:
        """Takes the metrics of update `step`, counted from 1, and reads those of an earlier one.

        Raises:
            TrainingFailed: From the guard.
        """
        for value in metrics.values():
            value.copy_to_host_async()
        self._pending.append((step, metrics))
        while len(self._pending) > _UPDATES_AHEAD:
            self._read(*self._pending.popleft())

    def flush(self) -> None:
        """Reads all updates so far; waits until the devices have made them.

        Raises:
            TrainingFailed: From the guard.
        """
        while self._pending:
            self._read(*self._pending.popleft())

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Time spent inside is not training: it does not count in the throughput."""
        self.flush()
        started = time.monotonic()
        yield
        self._since += time.monotonic() - started

    def _read(self, step: int, on_devices: Metrics) -> None:
        metrics = {name: float(value) for name, value in jax.device_get(on_devices).items()}
        self._guard.see(step, metrics)
        self._updates += 1
        if not metrics["skipped"]:
            self._nats += metrics["loss_nats_per_token"] * metrics["tokens"]
            self._tokens += metrics["tokens"]
        if step % self._every_steps == 0:
            mean = self._nats / self._tokens if self._tokens else float("nan")
            metrics |= {"loss_nats_per_token": mean, "skipped_updates": float(self._guard.total)}
            del metrics["skipped"], metrics["tokens"]
            seconds = time.monotonic() - self._since
            self._report(step, metrics, self._updates, seconds)
            self._nats, self._tokens, self._updates = 0.0, 0.0, 0
            self._since = time.monotonic()
