"""How far a build is: a bar for each source and stage at work, a line for each one that is done."""

import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from llama_jax.plain_text import byte_size

_LABEL_WIDTH = 30
_AT_ONCE_SECONDS = 0.1


class BuildProgress:
    """A `data_pipelines.listeners.Reporter` on stderr.

    On a terminal, bars are alive below the lines of stages that are done; elsewhere a stage is a
    line when it begins.
    """

    def __init__(self) -> None:
        from rich import progress
        from rich.console import Console
        from rich.table import Column

        self._console = Console(stderr=True, highlight=False)
        self._alive = self._console.is_terminal
        self._bars = progress.Progress(
            progress.SpinnerColumn(),
            progress.TextColumn(f"{{task.description:<{_LABEL_WIDTH}}}"),
            progress.BarColumn(bar_width=None, table_column=Column(ratio=1, max_width=30)),
            progress.TaskProgressColumn(),
            progress.TextColumn("{task.fields[told]:>26}"),
            progress.TimeElapsedColumn(),
            console=self._console,
            transient=True,
            expand=True,
            disable=not self._alive,
        )
        self._stages: dict[str, _Stage] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self._end_all()
        self._bars.stop()

    def stage(self, name: str, total_bytes: int) -> None:
        """See `data_pipelines.listeners.Reporter`."""
        # A step's sources begin together: what is of another step has come to its end.
        if any(other.split()[0] != name.split()[0] for other in self._stages):
            self._end_all()
        # A bar of unknown length until there is news: some stages have none before their end.
        bar = self._bars.add_task(name, total=None, told=byte_size(total_bytes))
        self._stages[name] = _Stage(bar, total_bytes)
        if not self._alive:
            print(f"{name} ...", file=sys.stderr, flush=True)

    def advance(self, name: str, num_bytes: int) -> None:
        """See `data_pipelines.listeners.Reporter`."""
        # Sizes are estimates: a stage that had less to do has ended, and stays so.
        if (stage := self._stages.get(name)) is not None:
            done = stage.done_bytes = min(stage.done_bytes + num_bytes, stage.total_bytes)
            told = f"{byte_size(done)} of {byte_size(stage.total_bytes)} {self._rate(stage)}"
            self._bars.update(stage.bar, total=stage.total_bytes, completed=done, told=told)
            if stage.done_bytes == stage.total_bytes:
                self._end(name)

    def died(self, tasks: Sequence[str]) -> None:
        """See `data_pipelines.listeners.Reporter`."""
        self._console.print(
            f"A process died, killed for lack of memory perhaps; run again: {', '.join(tasks)}.",
            markup=False,
            soft_wrap=True,
        )

    def _end_all(self) -> None:
        for name in list(self._stages):
            self._end(name)

    def _end(self, name: str) -> None:
        stage = self._stages.pop(name)
        self._bars.remove_task(stage.bar)
        if self._alive:
            stage.done_bytes = stage.total_bytes
            self._console.print(
                f"[green]✓[/] {name:<{_LABEL_WIDTH}} {byte_size(stage.total_bytes):>8} "
                f"{self._rate(stage):>12} {stage.seconds():>8,.1f} s",
                soft_wrap=True,
            )

    def _rate(self, stage: "_Stage") -> str:
        seconds = stage.seconds()
        # What a former build has left is there at once.
        return f"{byte_size(stage.done_bytes / seconds)}/s" if seconds > _AT_ONCE_SECONDS else ""


class _Stage:
    """One that is at work."""

    def __init__(self, bar: Any, total_bytes: int):
        self.bar, self.total_bytes, self.done_bytes = bar, total_bytes, 0
        self._started = time.monotonic()

    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._started
