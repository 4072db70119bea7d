"""Train a ladder of small runs, fit a law to them, and check what it predicts."""

import concurrent.futures
import csv
import dataclasses
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
from llama_jax.cli.scaling.ladder_workers import Trainer, open_trainer
from llama_jax.config import LadderConfig

USAGE = """usage: llama-jax scaling ladder LADDER.py --out DIR [--data DIR] [--at-once N]
           [--json]

Trains every size of a ladder once on a plateau and cools it down at several lengths, fits a law to
the smaller sizes, and compares what it predicts with the larger ones. Killed or stopped (exit code
75), it goes on where it was. Runs that diverge are left out of the fit, and named. Where a size has
several learning rates, the best at each length counts, and all are told.

In a terminal a table shows every run, and DIR/log.txt has what the runs say of themselves, as it
has wherever several are trained at once.

DIR/runs.csv is what `llama-jax scaling fit` takes.

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
    with (
        open_trainer(options.at_once, options.out) as trainer,
        open_progress(runs, options.out, options.at_once) as progress,
    ):
        results = _climb(runs, options.out, trainer, progress)
    if results is None:
        print("stopped; start again to go on from here", file=sys.stderr)
        return 75
    if not options.json:
        # Before the fit, which runs that are too few or too short refuse.
        for choice in choose_rates(results):
            if len(choice.rates) > 1:
                print(choice)
    answer = _judge(results, options)
    if options.json:
        print(json.dumps(answer, indent=2))
    else:
        _print(answer)
    return 0


def _climb(
    runs: Sequence[LadderRun], out: Path, trainer: Trainer, progress: LadderProgress
) -> list[dict[str, Any]] | None:
    """What each cooled run came to; None where it was stopped."""
    results: dict[str, dict[str, Any]] = {}
    running: dict[Future[Any], LadderRun] = {}
    left, stopped = list(runs), False
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
    return None if stopped else _cooled(runs, results)


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
    good = [run for choice in choose_rates(results) for run in choice.best.runs]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, names, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(sorted(good, key=lambda run: [run[n] for n in ("params", "tokens", "seed")]))
    write_atomically(path, text.getvalue())


def _judge(results: list[dict[str, Any]], options: _Options) -> dict[str, Any]:
    """Fits the smaller sizes, and compares its predictions with the larger ones."""
    from llama_jax.recipe import to_json
    from llama_jax.scaling.estimates import constants
    from llama_jax.scaling.fit import check_predictions, fit_loss
    from llama_jax.scaling.pictures import plot_ladder
    from llama_jax.scaling.runs import make_runs

    choices = choose_rates(results)
    good = [run for choice in choices for run in choice.best.runs]
    held_out = [result for result in good if result["held_out"]]
    fitted, aside = (
        make_runs(*([run[name] for run in part] for name in ("params", "tokens", "loss")))
        for part in ([result for result in good if not result["held_out"]], held_out)
    )
    fit = fit_loss(fitted, resamples=options.resamples)
    law, picture = fit.law, options.out / "ladder.png"
    write_atomically(options.out / "law.json", to_json(law))
    plot_ladder(fitted, fit, aside, picture)
    return {
        "estimates": {name: value.document() for name, value in constants(fit).items()},
        "note": law.about.note,
        "runs_fitted": len(fitted),
        "learning_rates": [choice.document() for choice in choices if len(choice.rates) > 1],
        "diverged": [result["run"] for result in results if result["diverged"]],
        "predictions": [
            {"run": result["run"]} | dataclasses.asdict(check)
            for result, check in zip(held_out, check_predictions(fit, aside), strict=True)
        ],
        "table": str(options.out / "runs.csv"),
        "law_file": str(options.out / "law.json"),
        "picture": str(picture),
    }


def _print(answer: dict[str, Any]) -> None:
    estimates = answer["estimates"].items()
    constants = ", ".join(f"{name} {estimate['value']:.5g}" for name, estimate in estimates)
    note = f" ({answer['note']})" if answer["note"] else ""
    print(f"{answer['runs_fitted']} runs: {constants}{note}")
    for check in answer["predictions"]:
        ends = check["interval_95"]
        told = f" ({ends[0]:.4f} to {ends[1]:.4f})" if ends else ""
        print(
            f"{check['run']}: predicted {check['predicted']:.4f}{told}, measured "
            f"{check['measured']:.4f} ({check['error']:+.2%})"
        )
    for name in answer["diverged"]:
        print(f"left out, diverged: {name}")
    print(f"{answer['table']}, {answer['law_file']}, {answer['picture']}")
