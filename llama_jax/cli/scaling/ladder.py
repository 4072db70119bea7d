"""Train a ladder of small runs, fit a law to them, and check what it predicts."""

import csv
import dataclasses
import io
import json
import math
import sys
from pathlib import Path
from typing import Any, NamedTuple

from llama_jax.atomic import write_atomically
from llama_jax.config import EvaluateConfig, LadderConfig, RunConfig, WarmupStableDecay
from llama_jax.config.ladder import Rung

USAGE = """usage: llama-jax scaling ladder LADDER.py --out DIR [--data DIR] [--json]

Trains every size of a ladder once on a plateau and cools it down at several lengths, fits a law to
the smaller sizes, and compares what it predicts with the larger ones. Killed or stopped (exit code
75), it goes on where it was. Runs that diverge are left out of the fit, and named.

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


class _Run(NamedTuple):
    """One training run, and where it branches off."""

    name: str
    config: RunConfig
    origin: str  # folder of the run that it continues; empty for none
    cooled: bool
    held_out: bool


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
    results, lost = [], set()
    runs = _runs(ladder)
    for number, run in enumerate(runs, 1):
        print(f"[{number}/{len(runs)}] {run.name}", file=sys.stderr)
        if run.origin in lost:
            result = _record(run, math.nan, f"{run.origin} diverged, from which it branches off")
        elif (result := _result(run, options.out)) is None:
            print("stopped; start again to go on from here", file=sys.stderr)
            return 75
        if result["diverged"] and not run.cooled:
            lost.add(run.name)
        if run.cooled:
            results.append(result)
            print(_line(result), file=sys.stderr)
            _write_table(options.out / "runs.csv", results)
    answer = _judge(results, options)
    if options.json:
        print(json.dumps(answer, indent=2))
    else:
        _print(answer)
    return 0


def _runs(ladder: LadderConfig) -> list[_Run]:
    """All runs, the cheapest first: a ladder that is stopped has whole budgets to fit."""
    from llama_jax.flops import count_params

    branches = []
    for index, rung in enumerate(ladder.rungs):
        held_out = index >= len(ladder.rungs) - ladder.held_out_rungs
        for seed in rung.seeds:
            before = ""
            for num_steps in rung.num_steps:
                plateau = ladder.plateau_steps(num_steps)
                trunk = f"rung{index}-seed{seed}-plateau{plateau}"
                branch = f"rung{index}-seed{seed}-{num_steps}"
                stable = _config(ladder, rung, seed, plateau, 0)
                cooled = _config(ladder, rung, seed, num_steps, num_steps - plateau)
                cost = count_params(rung.model).total * cooled.tokens_before(num_steps)
                pair = (
                    _Run(trunk, stable, before, False, held_out),
                    _Run(branch, cooled, trunk, True, held_out),
                )
                branches.append((cost, pair))
                before = trunk
    # A longer plateau costs more than the one that it goes on from, so it stays behind it.
    branches.sort(key=lambda branch: branch[0])
    return [run for _, pair in branches for run in pair]


def _config(
    ladder: LadderConfig, rung: Rung, seed: int, num_steps: int, decay_steps: int
) -> RunConfig:
    base = ladder.base
    shortest = ladder.plateau_steps(rung.num_steps[0])
    return dataclasses.replace(
        base,
        name=ladder.name,
        model=rung.model,
        data=dataclasses.replace(base.data, shuffle_seed=seed),
        train=dataclasses.replace(
            base.train, num_steps=num_steps, batch_size=rung.batch_size, seed=seed
        ),
        optimizer=dataclasses.replace(base.optimizer, peak_lr=rung.peak_lr),
        schedule=WarmupStableDecay(
            warmup_steps=round(shortest * ladder.warmup_fraction), decay_steps=decay_steps
        ),
        # What a plateau scores is not used: its cooled branches are.
        evaluate=EvaluateConfig(num_batches=base.evaluate.num_batches if decay_steps else 1),
    )


def _result(run: _Run, out: Path) -> dict[str, Any] | None:
    """What a run came to, trained if it is not yet; None where it was stopped."""
    path = out / run.name / "ladder.json"
    # A result is that of a config: a changed ladder is refused by the run's own folder.
    if path.is_file() and _config_is(path.parent, run.config):
        return json.loads(path.read_text())
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


def _record(run: _Run, loss: float, diverged: str) -> dict[str, Any]:
    from llama_jax.flops import count_params

    return {
        "run": run.name,
        "params": count_params(run.config.model).total,
        "tokens": run.config.tokens_before(run.config.train.num_steps),
        "loss": loss if math.isfinite(loss) else None,
        "seed": run.config.train.seed,
        "held_out": run.held_out,
        "diverged": diverged,
    }


def _config_is(folder: Path, config: RunConfig) -> bool:
    from llama_jax.recipe import to_json

    saved = folder / "config.json"
    return saved.is_file() and saved.read_text() == to_json(config)


def _line(result: dict[str, Any]) -> str:
    told = f"DIVERGED: {result['diverged']}" if result["diverged"] else f"{result['loss']:.4f}"
    return (
        f"{result['run']:<28} {result['params']:>12,} params {result['tokens']:>14,} tokens {told}"
    )


def _write_table(path: Path, results: list[dict[str, Any]]) -> None:
    names = ["run", "params", "tokens", "loss", "seed", "held_out"]
    good = [result for result in results if not result["diverged"]]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, names, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(sorted(good, key=lambda run: [run[n] for n in ("params", "tokens", "seed")]))
    write_atomically(path, text.getvalue())


def _judge(results: list[dict[str, Any]], options: _Options) -> dict[str, Any]:
    """Fits the smaller sizes, and compares its predictions with the larger ones."""
    from llama_jax.recipe import to_json
    from llama_jax.scaling.fit import fit_loss
    from llama_jax.scaling.runs import make_runs

    good = [result for result in results if not result["diverged"]]
    fitted = [result for result in good if not result["held_out"]]
    columns = [[result[name] for result in fitted] for name in ("params", "tokens", "loss")]
    fit = fit_loss(make_runs(*columns), resamples=options.resamples)
    law = fit.law
    write_atomically(options.out / "law.json", to_json(law))
    checks = []
    for result in good:
        if result["held_out"]:
            predicted = law.loss(result["params"], result["tokens"])
            checks.append(
                {
                    "run": result["run"],
                    "predicted": predicted,
                    "measured": result["loss"],
                    "error": predicted / result["loss"] - 1,
                }
            )
    return {
        "law": {name: getattr(law, name) for name in ("A", "B", "E", "alpha", "beta")},
        "standard_errors": fit.resamples.std(axis=0, ddof=1).tolist() if len(fit.resamples) else [],
        "runs_fitted": len(fitted),
        "diverged": [result["run"] for result in results if result["diverged"]],
        "predictions": checks,
        "table": str(options.out / "runs.csv"),
        "law_file": str(options.out / "law.json"),
    }


def _print(answer: dict[str, Any]) -> None:
    constants = ", ".join(f"{name} {value:.5g}" for name, value in answer["law"].items())
    print(f"{answer['runs_fitted']} runs: {constants}")
    for check in answer["predictions"]:
        print(
            f"{check['run']}: predicted {check['predicted']:.4f}, measured {check['measured']:.4f} "
            f"({check['error']:+.2%})"
        )
    for name in answer["diverged"]:
        print(f"left out, diverged: {name}")
    print(f"{answer['table']}, {answer['law_file']}")
