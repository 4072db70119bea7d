"""Where a ladder stands: a live table in a terminal, plain lines anywhere else."""

import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from llama_jax.cli.scaling.ladder_runs import LadderRun
from llama_jax.units import human_count

_DIVERGED = "DIVERGED"


class LadderProgress:
    """What is done of the runs of a ladder, and how long the rest takes at the same speed.

    Args:
        runs: In the order in which they are trained.
        out: Folder of their folders.
        file: Where lines go; None where a table shows it all.
        at_once: Runs that are trained side by side.
    """

    def __init__(
        self, runs: Sequence[LadderRun], out: Path, *, file: IO[str] | None, at_once: int = 1
    ):
        self._runs, self._out, self._file, self._at_once = runs, out, file, at_once
        self._began: dict[str, float] = {}  # those that are being trained
        self._ended: dict[str, tuple[float | None, str]] = {}
        self._seconds = self._flops = 0.0  # of the runs that this start trained

    def begin(self, run: LadderRun) -> None:
        """A run is next."""
        self._began[run.name] = time.monotonic()
        if self._file is not None:
            counted = f"[{self._runs.index(run) + 1}/{len(self._runs)}]"
            told = f"{human_count(run.params)} parameters to {human_count(run.tokens)} tokens"
            print(" · ".join([f"{counted} {run.name}", told, *self._rest()]), file=self._file)

    def end(self, run: LadderRun, loss: float | None, diverged: str) -> None:
        """A run is over; `loss` is that on held-out documents, `diverged` why it does not count."""
        seconds = time.monotonic() - self._began.pop(run.name, time.monotonic())
        # One that was there already is read in no time, and says nothing of the speed.
        if seconds > 1:
            self._seconds += seconds / self._at_once
            self._flops += run.flops
        self._ended[run.name] = (loss, diverged)
        if self._file is not None and (run.cooled or diverged):
            told = f"DIVERGED: {diverged}" if diverged else f"loss {loss:.4f}"
            print(f"{run.name} · {told}", file=self._file, flush=True)

    def note(self, lines: Sequence[str]) -> None:
        """What is found before all runs are over; a table has no place for it."""
        if self._file is not None:
            print("\n".join(lines), file=self._file, flush=True)

    def rows(self) -> list[tuple[str, ...]]:
        """For each cooled run: name, parameters, tokens, FLOPs, progress, loss and time left."""
        return [
            self._row(plateau, cooled)
            for plateau, cooled in zip(self._runs[::2], self._runs[1::2], strict=True)
        ]

    def table(self, height: int) -> Any:
        """The rows, as many around the current one as fit."""
        from rich.table import Table

        rows, current = self.rows(), self._current()
        notes = [f"{name} diverged: {why}" for name, (_, why) in self._ended.items() if why]
        shown = max(3, height - 6 - len(notes))
        first = max(0, min(min(current) - shown // 2, len(rows) - shown))
        if (hidden := len(rows) - shown) > 0:
            notes.append(f"{first} rows above, {hidden - first} below")
        table = Table(
            title=" · ".join([f"{len(rows)} runs", *self._rest()]),
            caption="\n".join(notes) or None,
            title_justify="left",
            caption_justify="left",
            box=None,
            pad_edge=False,
        )
        for name in ("run", "parameters", "tokens", "FLOPs (6ND)", "progress", "loss", "left"):
            table.add_column(name, justify="left" if name == "run" else "right", no_wrap=True)
        for number, cells in enumerate(rows[first : first + shown], first):
            style = "bold" if number in current else None
            style = "red" if cells[4] == _DIVERGED else style
            table.add_row(*cells, style=style)
        return table

    def _row(self, plateau: LadderRun, cooled: LadderRun) -> tuple[str, ...]:
        pair = (plateau, cooled)
        told, loss, left = "", "", ""
        if any(self._ended.get(run.name, (None, ""))[1] for run in pair):
            told, left = _DIVERGED, "left out"
        elif cooled.name in self._ended:
            told, loss = "done", f"{self._ended[cooled.name][0]:.4f}"
        else:
            for run in (run for run in pair if run.name in self._began):
                step, latest = self._latest(run)
                done = f"{step:,}/{run.config.train.num_steps:,}"
                told = f"{'cooling' if run.cooled else 'plateau'} {done}"
                loss = f"{latest:.3f} train" if latest is not None else ""
            seconds = self._seconds_for(sum(self._flops_left(run) for run in pair))
            left = "" if seconds is None else _clock(seconds)
        name = cooled.name + " (held out)" * cooled.held_out
        flops = f"{6.0 * cooled.params * cooled.tokens:.2g}"
        return name, human_count(cooled.params), human_count(cooled.tokens), flops, told, loss, left

    def _flops_left(self, run: LadderRun) -> float:
        if run.name in self._ended:
            return 0.0
        if run.name in self._began:
            return run.flops - run.flops_before(self._latest(run)[0])
        return run.flops

    def _current(self) -> set[int]:
        """Rows of what is being trained, or the first one."""
        names = [run.name for run in self._runs]
        return {names.index(name) // 2 for name in list(self._began)} or {0}

    def _latest(self, run: LadderRun) -> tuple[int, float | None]:
        """The step and the loss that the run last wrote."""
        from llama_jax.observe.writers import read_metrics

        path = self._out / run.name / "metrics.jsonl"
        records = read_metrics(path) if path.is_file() else []
        losses = [
            (int(r["step"]), r["loss_nats_per_token"])
            for r in records
            if "loss_nats_per_token" in r
        ]
        return losses[-1] if losses else (run.first_step, None)

    def _seconds_for(self, flops: float) -> float | None:
        return flops * self._seconds / self._flops if self._flops else None

    def _rest(self) -> list[str]:
        left = sum(self._flops_left(run) for run in self._runs)
        share = 1 - left / sum(run.flops for run in self._runs)
        seconds = self._seconds_for(left)
        diverged = sum(bool(why) for _, why in self._ended.values())
        told = [f"{share:.0%} of the FLOPs done"]
        if left and seconds is not None:
            told.append(f"about {_clock(seconds)} left")
        if diverged:
            told.append(f"{diverged} diverged, left out of the fit")
        return told


@contextlib.contextmanager
def open_progress(runs: Sequence[LadderRun], out: Path, at_once: int) -> Iterator[LadderProgress]:
    """Shows the progress on stderr while it is open; a terminal sees a table and nothing else."""
    if not sys.stderr.isatty():
        yield LadderProgress(runs, out, file=sys.stderr, at_once=at_once)
        return
    from rich.console import Console
    from rich.live import Live

    progress = LadderProgress(runs, out, file=None, at_once=at_once)
    console = Console(file=sys.stderr, highlight=False)
    out.mkdir(parents=True, exist_ok=True)
    live = Live(
        get_renderable=lambda: progress.table(console.height),
        console=console,
        refresh_per_second=1,
        redirect_stderr=False,
        redirect_stdout=False,
    )
    with (out / "log.txt").open("a") as log, live, contextlib.redirect_stderr(log):
        yield progress


def _clock(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
