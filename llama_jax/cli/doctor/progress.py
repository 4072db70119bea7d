"""What the doctor is doing and for how long, on stderr."""

import contextlib
import sys
import time
from collections.abc import Iterator


@contextlib.contextmanager
def stage(name: str) -> Iterator[None]:
    """Names a part of the work while it runs, and tells how long it took.

    A terminal shows the time as it passes; elsewhere there is one line before and one after.
    """
    start = time.monotonic()
    with _live(name) if sys.stderr.isatty() else _plain(name):
        yield
    print(f"{name}: {time.monotonic() - start:,.1f} s", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _live(name: str) -> Iterator[None]:
    from rich.console import Console
    from rich.live import Live
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True, highlight=False)
    progress = Progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    progress.add_task(name, total=None)
    with Live(progress, console=console, transient=True, refresh_per_second=4):
        yield


@contextlib.contextmanager
def _plain(name: str) -> Iterator[None]:
    print(f"{name} ...", file=sys.stderr, flush=True)
    yield
