"""Train a ladder of small runs, fit a law to them, and check what it predicts."""

import concurrent.futures
import csv
import dataclasses
import functools
import io
import json
import math
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from llama_jax.atomic import write_atomically
from llama_jax.cli.scaling.ladder_progress import LadderProgress, open_progress
from llama_jax.cli.scaling.ladder_rates import choose_rates
from llama_jax.cli.scaling.ladder_runs import LadderRun, ladder_runs
from llama_jax.cli.scaling.ladder_training import record
from llama_jax.cli.scaling.ladder_verdict import Outcome, check, counted, judge, tell_law
from llama_jax.cli.scaling.ladder_workers import Trainer, open_trainer
from llama_jax.config import LadderConfig

USAGE = """usage: llama-jax scaling ladder LADDER.py --out DIR [--data DIR] [--at-once N]
           [--json]

Trains every size of a ladder once on a plateau and cools it down at several lengths, fits a law to
the smaller sizes, predicts the larger ones, and only then trains these and compares. Killed or
stopped (exit code 75), it goes on where it was. Runs that diverge are left out of the fit, and
named. Where a size has several learning rates, the best at each length counts, and all are told.

In a terminal a table shows every run, and DIR/log.txt has what the runs say of themselves, as it
has wherever several are trained at once.

DIR/runs.csv is what `llama-jax scaling fit` takes; DIR/predictions.json has every law's predictions
and when they were made.

example: llama-jax scaling ladder configs/ladders/tiny.py --out ladder --data demo_run/data"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Options:
    """Options of `scaling ladder`."""

    out: Path
    """Folder of the runs and of runs.csv."""
    data: str = ""
    """Folder of token shards, in place of the ladder's."""
    at_once: int = 1
    """Runs that are trained side by side, in a process and with a share of the cores each."""
    resamples: int = 4000
    """Bootstrap resamples of the fit."""
    json: bool = False
    """Print one JSON document on stdout."""


def main(argv: list[str]) -> int:
    """Runs `llama-jax scaling ladder`."""
    if not argv or argv[0].startswith("-"):
        asked = argv[:1] in (["-h"], ["--help"])
        print(USAGE, file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    import tyro

    from llama_jax.recipe import load_recipe

    description = USAGE.partition("\n\n")[2]
    prog = f"llama-jax scaling ladder {argv[0]}"
    options = tyro.cli(_Options, prog=prog, description=description, args=argv[1:])
    ladder: LadderConfig = load_recipe(argv[0], LadderConfig)
    if options.data:
        data = dataclasses.replace(ladder.base.data, directory=options.data)
        ladder = dataclasses.replace(ladder, base=dataclasses.replace(ladder.base, data=data))
    runs = ladder_runs(ladder)
    told: list[str] = []  # a table may stand in the terminal until the end
    try:
        with (
            open_trainer(options.at_once, options.out) as trainer,
            open_progress(runs, options.out, options.at_once) as progress,
        ):
            outcome = _climb(runs, options, trainer, progress, told)
    finally:
        if not options.json:
            print("\n".join(told))
    if outcome is None:
        print("stopped; start again to go on from here", file=sys.stderr)
        return 75
    if options.json:
        print(json.dumps(outcome.document(), indent=2))
    else:
        print("\n".join(outcome.lines()))
    return 0


def _climb(
    runs: Sequence[LadderRun],
    options: _Options,
    trainer: Trainer,
    progress: LadderProgress,
    told: list[str],
) -> Outcome | None:
    """Trains what is fitted, predicts the rest, trains it, and compares; None if it was stopped."""
    results: dict[str, dict[str, Any]] = {}
    climb = functools.partial(_train, runs, results, options.out, trainer, progress)
    if not climb(held_out=False):
        return None
    # Before the fit, which runs that are too few or too short refuse.
    choices = choose_rates(_cooled(runs, results))
    told += [str(choice) for choice in choices if len(choice.rates) > 1]
    held_out = [run for run in runs if run.cooled and run.held_out]
    verdict = judge(_cooled(runs, results), held_out, options.out, options.resamples)
    law = tell_law(verdict)
    told += law
    progress.note(law)
    if not climb(held_out=True):
        return None
    return check(verdict, _cooled(runs, results), options.out)


def _train(
    runs: Sequence[LadderRun],
    results: dict[str, dict[str, Any]],
    out: Path,
    trainer: Trainer,
    progress: LadderProgress,
    *,
    held_out: bool,
) -> bool:
    """Adds what each run came to, of those that are fitted or of the others; False if stopped."""
    running: dict[Future[Any], LadderRun] = {}
    left, stopped = [run for run in runs if run.held_out == held_out], False
    while left or running:
        # In their order, but for those whose origin is not trained yet.
        ready = [run for run in left if not run.origin or run.origin in results]
        for run in ready[: trainer.at_once - len(running)]:
            left.remove(run)
            progress.begin(run)
            running[_begin(run, out, trainer, results)] = run
        done, _ = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
        for future in done:
            run, result = running.pop(future), future.result()
            if result is None:
                left, stopped = [], True
                trainer.stop()
                continue
            results[run.name] = result
            progress.end(run, result["loss"], result["diverged"])
            if run.cooled:
                _write_table(out / "runs.csv", _cooled(runs, results))
    return not stopped


def _begin(
    run: LadderRun, out: Path, trainer: Trainer, results: Mapping[str, dict[str, Any]]
) -> Future[Any]:
    if not run.origin or not results[run.origin]["diverged"]:
        return trainer.submit(run, out)
    future: Future[Any] = Future()
    why = f"{run.origin} diverged, from which it branches off"
    future.set_result(record(run, math.nan, why))
    return future


def _cooled(
    runs: Sequence[LadderRun], results: Mapping[str, dict[str, Any]]
) -> list[dict[str, Any]]:
    return [results[run.name] for run in runs if run.cooled and run.name in results]


def _write_table(path: Path, results: list[dict[str, Any]]) -> None:
    names = ["run", "params", "tokens", "loss", "peak_lr", "seed", "held_out"]
    good = counted(results)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, names, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(sorted(good, key=lambda run: [run[n] for n in ("params", "tokens", "seed")]))
    write_atomically(path, text.getvalue())
