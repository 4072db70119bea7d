"""What a build hears of its tasks: how far they are, who died, and whether damage is too much."""

import collections
from collections.abc import Mapping, Sequence
from typing import Protocol

from .engine import Engine, Listener, Task


class Reporter(Protocol):
    """Is told how far a build is."""

    def stage(self, name: str, total_bytes: int) -> None:
        """A stage of a source begins, over so many bytes; others may be under way."""
        ...

    def advance(self, name: str, num_bytes: int) -> None:
        """A stage has done so many more."""
        ...

    def died(self, tasks: Sequence[str]) -> None:
        """A process has died that may have been at work on one of these; they are run again."""
        ...


class StageListener(Listener):
    """Tells a reporter of stages what it hears of their tasks."""

    def __init__(self, reporter: Reporter):
        self._reporter = reporter
        self._stages: dict[str, str] = {}

    def begin(self, stage: str, tasks: Sequence[Task]) -> None:
        """A stage of these tasks begins."""
        self._stages |= {task.name: stage for task in tasks}
        if tasks:
            self._reporter.stage(stage, sum(task.size_bytes for task in tasks))

    def advanced(self, task: str, num_bytes: int) -> None:
        """See `Listener`."""
        self._reporter.advance(self._stages[task], num_bytes)

    def died(self, tasks: Sequence[str]) -> None:
        """See `Listener`."""
        self._reporter.died(tasks)


class BuildListener(StageListener):
    """Keeps an account besides, and ends a build at the first piece of damage too many.

    Args:
        reporter: Is told how far it is.
        engine: Runs the tasks.
        max_bad_records: So many damaged files and records are left out; None for any number.

    Attributes:
        worker_deaths: Of each process that died, the tasks that it may have been at work on.
    """

    def __init__(self, reporter: Reporter, engine: Engine, max_bad_records: int | None):
        super().__init__(reporter)
        self._engine, self._max_bad_records = engine, max_bad_records
        self._bad: collections.Counter[str] = collections.Counter()
        self._first_bad: dict[str, str] = {}
        self._sources: dict[str, str] = {}
        self.worker_deaths: list[list[str]] = []

    def begin_step(self, step: str, tasks: Mapping[str, Sequence[Task]]) -> None:
        """A step begins, of tasks by source."""
        for source, of_source in tasks.items():
            self._sources |= {task.name: source for task in of_source}
            self.begin(f"{step} {source}".strip(), of_source)

    def died(self, tasks: Sequence[str]) -> None:
        """See `Listener`."""
        super().died(tasks)
        self.worker_deaths.append(list(tasks))

    def finished(self, task: str) -> None:
        """See `Listener`.

        Raises:
            ValueError: If there is more damage than is allowed.
        """
        if self._max_bad_records is None:
            return
        account = self._engine.result(task).get("dropped")
        if account and account["num_bad"]:
            source = self._sources[task]
            self._bad[source] += account["num_bad"]
            self._first_bad.setdefault(source, account["bad"][0])
            self._check_damage(self._max_bad_records)

    def _check_damage(self, most: int) -> None:
        if (total := self._bad.total()) > most:
            found = "; ".join(
                f"{count:,} in {source}, such as {self._first_bad[source]}"
                for source, count in self._bad.items()
            )
            raise ValueError(
                f"--max-bad-records={most}: there are {total:,} damaged files or records, if not "
                f"more: {found}. Mend or remove them, or allow more; what is done is kept."
            )
