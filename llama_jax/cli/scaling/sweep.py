"""Try learning rates on one size, several runs in one program on one device."""

import dataclasses
import itertools
import json
import math
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llama_jax.cli.scaling.ladder_rates import Choice, choose_rates
from llama_jax.cli.scaling.ladder_runs import rung_config
from llama_jax.config import EvaluateConfig, GuardConfig, LadderConfig, MeshConfig, RunConfig
from llama_jax.flops import count_params
from llama_jax.units import human_count

if TYPE_CHECKING:
    from llama_jax.train.replicas import Replica

USAGE = """usage: llama-jax scaling sweep (RECIPE | LADDER.py --rung K) --learning-rates X X ...
           [--seeds N ...] [--steps N] [--data DIR] [--at-once N] [--json]

Trains a recipe, or a size of a ladder, at several learning rates, each from the initial weights of
every seed. All runs read the same batches, and so many as --at-once are trained in one program on
one device; nothing of them is kept. Scores are the mean loss over the last tenth of the updates,
each of which reads new text. Says which rate is best, and whether a better one may lie beyond.

example:
  llama-jax scaling sweep configs/ladders/tiny.py --rung 0 --learning-rates 2e-3 4e-3 8e-3
    --seeds 0 1 --data demo_run/data"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Options:
    """Options of `scaling sweep`."""

    learning_rates: tuple[float, ...]
    """Peaks that are tried."""
    seeds: tuple[int, ...] = (0,)
    """Of the initial weights: each rate is tried with every one."""
    rung: int = -1
    """Of a ladder, counted from 0; its shortest length, where --steps does not say another."""
    steps: int = 0
    """Updates; 0 for the recipe's own."""
    data: str = ""
    """Folder of token shards, in place of the recipe's."""
    at_once: int = 0
    """Runs in one program; 0 for all of them on an accelerator and one on a CPU, which trains no
    two faster than one after the other."""
    json: bool = False
    """Print one JSON document on stdout."""


def main(argv: list[str]) -> int:
    """Runs `llama-jax scaling sweep`."""
    if not argv or argv[0].startswith("-"):
        asked = argv[:1] in (["-h"], ["--help"])
        print(USAGE, file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    import tyro

    options = tyro.cli(
        _Options,
        prog=f"llama-jax scaling sweep {argv[0]}",
        description=USAGE.partition("\n\n")[2],
        args=argv[1:],
    )
    _check(options)
    config = _config(argv[0], options)
    (choice,) = choose_rates(_train(config, options))
    if options.json:
        print(json.dumps(choice.document(), indent=2))
    else:
        print("\n".join(_lines(choice, config, options)))
    return 0


def _check(options: _Options) -> None:
    for name, values in (("learning-rates", options.learning_rates), ("seeds", options.seeds)):
        if not values or len(set(values)) < len(values):
            raise ValueError(f"--{name}={values} must be one or more, all different.")
    if not all(0 < rate < math.inf for rate in options.learning_rates):
        raise ValueError(f"--learning-rates={options.learning_rates} must be positive and finite.")
    if min(options.steps, options.at_once) < 0:
        raise ValueError("--steps and --at-once must be zero or more.")


def _config(reference: str, options: _Options) -> RunConfig:
    """What all runs share: one device, no guards, no scores on the way, batches of one size."""
    from llama_jax.recipe import load_recipe

    if options.rung >= 0:
        ladder: LadderConfig = load_recipe(reference, LadderConfig)
        if options.rung >= len(ladder.rungs):
            raise ValueError(
                f"--rung={options.rung} must be below {len(ladder.rungs)}, the sizes of the ladder."
            )
        rung = ladder.rungs[options.rung]
        config = rung_config(ladder, rung, options.steps or rung.num_steps[0])
    else:
        config = load_recipe(reference)
    train = dataclasses.replace(
        config.train, num_steps=options.steps or config.train.num_steps, batch_ramp=()
    )
    data = dataclasses.replace(config.data, directory=options.data or config.data.directory)
    return dataclasses.replace(
        config,
        train=train,
        data=data,
        mesh=MeshConfig(),
        guards=GuardConfig(),
        evaluate=EvaluateConfig(),
        stream=None,
    )


def _train(config: RunConfig, options: _Options) -> list[dict[str, Any]]:
    """What each run came to, as a ladder keeps it."""
    import jax

    from llama_jax.cli.compilation_cache import enable_compilation_cache
    from llama_jax.data.dataset import open_dataset
    from llama_jax.sharding import make_mesh, use_layout
    from llama_jax.train.feed import feed
    from llama_jax.train.replicas import Replica, Replicas

    enable_compilation_cache()
    device = jax.local_devices()[0]
    runs = [
        Replica(peak_lr=rate, seed=seed)
        for rate, seed in itertools.product(options.learning_rates, options.seeds)
    ]
    at_once = options.at_once or (1 if device.platform == "cpu" else len(runs))
    size = config.train.batch_size
    dataset = open_dataset(config.data, vocab_size=config.model.vocab_size, batch_size=size)
    mesh = make_mesh(config.mesh, [device])
    together, results = Replicas(config, mesh), []
    for start in range(0, len(runs), at_once):
        some = runs[start : start + at_once]
        with use_layout(mesh):
            batches = feed(config, mesh, dataset, step=0, first_sample=0)
        losses = together.train(some, batches)
        for one, of_one in zip(some, losses.T, strict=True):
            results.append(_result(config, one, of_one))
            loss = results[-1]["loss"]
            print(f"{one.peak_lr:g}, seed {one.seed}: {loss:.4f}", file=sys.stderr, flush=True)
    return results


def _result(config: RunConfig, run: "Replica", losses: Sequence[float]) -> dict[str, Any]:
    """One row of a ladder's table; a run that is no better than guessing diverged."""
    last = losses[-max(1, len(losses) // 10) :]
    loss = float(sum(last)) / len(last)
    return {
        "params": count_params(config.model).total,
        "tokens": config.tokens_before(config.train.num_steps),
        "peak_lr": run.peak_lr,
        "seed": run.seed,
        "loss": loss,
        "diverged": not loss < math.log(config.model.vocab_size),
    }


def _lines(choice: Choice, config: RunConfig, options: _Options) -> list[str]:
    of_each = f"{config.train.num_steps} updates of {config.train.batch_size} rows"
    seeds = f"the mean of seeds {', '.join(map(str, options.seeds))}"
    lines = [
        f"{human_count(choice.params)} parameters, {human_count(choice.tokens)} tokens in {of_each}"
        + (f", {seeds}" if len(options.seeds) > 1 else "")
    ]
    for rate in choice.rates:
        losses = [run["loss"] for run in rate.runs]
        told = f"{rate.loss:.4f}" if losses else "no loss"
        apart = f" ({min(losses):.4f} to {max(losses):.4f})" if len(losses) > 1 else ""
        diverged = f", {rate.diverged} diverged" if rate.diverged else ""
        lines.append(f"  {rate.peak_lr:<8g} {told}{apart}{diverged}")
    if not choice.best.runs:
        return [*lines, "no rate is left: all diverged"]
    edge = ", the last one tried on its side: a better one may lie beyond"
    return [*lines, f"best {choice.best.peak_lr:g}{edge if choice.at_edge else ''}"]
