"""Train a ladder of small runs, fit a law to them, and check what it predicts."""

import csv
import dataclasses
import io
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llama_jax.atomic import write_atomically
from llama_jax.cli.scaling.ladder_progress import LadderProgress, open_progress
from llama_jax.cli.scaling.ladder_rates import choose_rates
from llama_jax.cli.scaling.ladder_runs import LadderRun, ladder_runs
from llama_jax.config import LadderConfig, RunConfig

USAGE = """usage: llama-jax scaling ladder LADDER.py --out DIR [--data DIR] [--json]

Trains every size of a ladder once on a plateau and cools it down at several lengths, fits a law to
the smaller sizes, and compares what it predicts with the larger ones. Killed or stopped (exit code
75), it goes on where it was. Runs that diverge are left out of the fit, and named. Where a size has
several learning rates, the best at each length counts, and all are told.

In a terminal a table shows every run, and DIR/log.txt has what the runs say of themselves.

DIR/runs.csv is what `llama-jax scaling fit` takes.

example: llama-jax scaling ladder configs/ladders/tiny.py --out ladder --data demo_run/data"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Options:
    """Options of `scaling ladder`."""

    out: Path
    """Folder of the runs and of runs.csv."""
    data: str = ""
    """Folder of token shards, in place of the ladder's."""
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
    with open_progress(runs, options.out) as progress:
        results = _climb(runs, options.out, progress)
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
    runs: Sequence[LadderRun], out: Path, progress: LadderProgress
) -> list[dict[str, Any]] | None:
    """What each cooled run came to; None where it was stopped."""
    results, lost = [], set()
    for run in runs:
        progress.begin(run)
        if run.origin in lost:
            result = _record(run, math.nan, f"{run.origin} diverged, from which it branches off")
        elif (result := _result(run, out)) is None:
            return None
        if result["diverged"] and not run.cooled:
            lost.add(run.name)
        progress.end(run, result["loss"], result["diverged"])
        if run.cooled:
            results.append(result)
            _write_table(out / "runs.csv", results)
    return results


def _result(run: LadderRun, out: Path) -> dict[str, Any] | None:
    """What a run came to, trained if it is not yet; None where it was stopped."""
    path = out / run.name / "ladder.json"
    # A result is that of a config: a changed ladder is refused by the run's own folder.
    if path.is_file() and _config_is(path.parent, run.config):
        return json.loads(path.read_text()) | {"peak_lr": run.config.optimizer.peak_lr}
    from llama_jax.cli.compilation_cache import enable_compilation_cache
    from llama_jax.train.beginning import parse_origin
    from llama_jax.train.guards import TrainingFailed
    from llama_jax.train.loop import train

    enable_compilation_cache()
    origin = parse_origin(str(out / run.origin)) if run.origin else None
    loss, diverged = math.nan, ""
    try:
        outcome = train(run.config, out / run.name, origin=origin)
    except TrainingFailed as failure:
        diverged = str(failure)
    else:
        if outcome.stopped_by:
            return None
        scores = outcome.held_out.values()
        loss = sum(score.nats for score in scores) / max(1, sum(score.tokens for score in scores))
        # One batch of a plateau is too little to judge by.
        if run.cooled and not loss < math.log(run.config.model.vocab_size):
            diverged = f"its held-out loss {loss:.3f} is that of guessing, or worse"
    result = _record(run, loss, diverged)
    write_atomically(path, json.dumps(result, indent=2) + "\n")
    return result


def _record(run: LadderRun, loss: float, diverged: str) -> dict[str, Any]:
    return {
        "run": run.name,
        "params": run.params,
        "tokens": run.tokens,
        "loss": loss if math.isfinite(loss) else None,
        "peak_lr": run.config.optimizer.peak_lr,
        "seed": run.config.train.seed,
        "held_out": run.held_out,
        "diverged": diverged,
    }


def _config_is(folder: Path, config: RunConfig) -> bool:
    from llama_jax.recipe import to_json

    saved = folder / "config.json"
    return saved.is_file() and saved.read_text() == to_json(config)


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
    from llama_jax.scaling.fit import check_predictions, fit_loss, standard_error
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
        "law": {name: getattr(law, name) for name in ("A", "B", "E", "alpha", "beta")},
        "standard_errors": [
            error if math.isfinite(error := standard_error(draws)) else None
            for draws in fit.resamples.T
            if len(draws)
        ],
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
    from llama_jax.scaling.fit import tell_constant

    law = answer["law"].items()
    constants = ", ".join(f"{name} {tell_constant(value, 5)}" for name, value in law)
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
