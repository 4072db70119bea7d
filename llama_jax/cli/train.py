"""Pretrain a model; started again, it resumes by itself."""

import dataclasses
import json
import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_jax.cli import versions
from llama_jax.cli.data.input import with_files_there, with_input
from llama_jax.cli.recipe_args import parse_recipe
from llama_jax.config import BuildConfig, RunConfig, TokenizerFile
from llama_jax.observe.goodput import process_began
from llama_jax.recipe import load_recipe
from llama_jax.remote.objects import shown
from llama_jax.remote.run_files import keep, read_only_copy

if TYPE_CHECKING:
    from llama_jax.train.loop import Outcome

_DESCRIPTION = """Pretrains a model; started again with the same folder, it goes on where it was.

Ctrl-C and SIGTERM finish the update, save, and exit with 75; start again to go on.

example:
  llama-jax train demo --run-dir demo_run/model --train.num-steps 200
  llama-jax train llama2_7b --pod v5p:4x4x8 --data.directory tokens
  llama-jax train demo --stream fineweb --input fineweb/ --tokenizer-file llama2.model
  llama-jax train demo --init-from demo_run/model@100 --run-dir cooled --train.num-steps 150"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Flags of the command beside the recipe's fields.

    Attributes:
        run_dir: Folder of the run, or a place in a bucket as gs://BUCKET/RUN or s3://BUCKET/RUN;
            runs/NAME by default, NAME being the recipe's.
        init_from: RUN or RUN@STEP: begin a new run from another's checkpoint, with its
            parameters, optimizer state, step and place in the data.
        data_from_start: With --init-from: data are read from their beginning, as other data than
            that run's have to be.
        stream: Data recipe whose raw documents are read, filtered and tokenised on the fly, in
            place of shards.
        pod: CHIP:GRID, or CHIP:GRID*SLICES: mesh, remat and pieces of a batch as the recipe's
            table says for it; fields that are given too come on top.
        input: File, folder or URL that the sources of --stream are below.
        tokenizer_file: A SentencePiece .model or tiktoken file, in place of that of --stream.
        json: Whether to print a summary as JSON on stdout at the end.
    """

    run_dir: Path | None = None
    init_from: str = ""
    data_from_start: bool = False
    stream: str = ""
    pod: str = ""
    input: str = ""
    tokenizer_file: str = ""
    json: bool = False


def main(argv: list[str]) -> int:
    """Runs the command; see `--help`."""
    began = process_began()
    config, options = parse(argv)
    versions.check(os.environ)
    run_dir = options.run_dir or Path("runs") / config.name
    from llama_jax.cli.compilation_cache import enable_compilation_cache
    from llama_jax.cli.pipelines import open_raw

    enable_compilation_cache()
    from llama_jax.train.backend import keep_freed_memory

    keep_freed_memory()
    from llama_jax.train import processes

    processes.join()
    from llama_jax.train.beginning import parse_origin
    from llama_jax.train.guards import TrainingFailed
    from llama_jax.train.loop import train

    origin = None
    if options.init_from:
        origin = parse_origin(options.init_from, data_from_start=options.data_from_start)
    try:
        with processes.failing_alone():
            outcome = train(config, run_dir, origin=origin, open_raw=open_raw, began=began)
    except TrainingFailed as failure:
        print(f"llama-jax train: failed: {failure}", file=sys.stderr)
        return 1
    if processes.is_first():
        _print_table(config, run_dir, outcome)
        if math.isfinite(outcome.loss_nats_per_token):
            _draw(run_dir)
        if options.json:
            print(json.dumps(_document(config, run_dir, outcome)))
    return 75 if outcome.stopped_by else 0


def parse(argv: list[str], prog: str = "llama-jax train") -> tuple[RunConfig, Options]:
    """Reads the command line.

    Args:
        argv: Recipe, overrides and flags.
        prog: How the command is called.

    Raises:
        ValueError: If the request is wrong.
        SystemExit: As `parse_recipe`.
    """
    config, options = parse_recipe(argv, prog=prog, description=_DESCRIPTION, extra=Options)
    if options.data_from_start and not options.init_from:
        raise ValueError("--data-from-start is of --init-from: a new run reads them so anyway.")
    return _with_stream(config, options), options


def _with_stream(config: RunConfig, options: Options) -> RunConfig:
    """The run with the raw documents that the command line names."""
    if not options.stream:
        if options.input or options.tokenizer_file:
            raise ValueError(
                "--input and --tokenizer-file are of --stream; name a data recipe there."
            )
        return config
    stream = load_recipe(options.stream, BuildConfig)
    if options.input:
        stream = with_input(stream, options.input)
    stream = with_files_there(stream, options.input)
    if options.tokenizer_file:
        stream = dataclasses.replace(stream, tokenizer=TokenizerFile(path=options.tokenizer_file))
    return dataclasses.replace(config, stream=stream)


def _document(config: RunConfig, run_dir: Path, outcome: "Outcome") -> dict[str, Any]:
    return {
        "name": config.name,
        "run_dir": shown(run_dir),
        "step": outcome.step,
        "num_steps": config.train.num_steps,
        "samples": outcome.samples,
        "tokens": outcome.tokens,
        "skipped_updates": outcome.skipped_updates,
        "stopped_by": outcome.stopped_by or None,
        "loss_nats_per_token": loss if math.isfinite(loss := outcome.loss_nats_per_token) else None,
        "held_out": {source: score.to_json() for source, score in outcome.held_out.items()},
        "seconds_to_first_step": round(outcome.seconds_to_first_step, 3),
        "seconds": round(outcome.seconds, 3),
    }


def _print_table(config: RunConfig, run_dir: Path, outcome: "Outcome") -> None:
    stopped = f", stopped by {outcome.stopped_by}" if outcome.stopped_by else ""
    rows = [("steps", f"{outcome.step:,} of {config.train.num_steps:,}{stopped}")]
    if outcome.skipped_updates:
        rows.append(("skipped updates", f"{outcome.skipped_updates:,}"))
    rows.append(("tokens", f"{outcome.tokens:,}"))
    if math.isfinite(outcome.loss_nats_per_token):
        rows.append(("training loss", f"{outcome.loss_nats_per_token:.4f} nats/token"))
    rows += [(f"held out: {source}", str(score)) for source, score in outcome.held_out.items()]
    rows += [("time", f"{outcome.seconds:,.1f} s"), ("run", shown(run_dir))]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value}", file=sys.stderr)
    if outcome.stopped_by:
        print("saved; start again to go on from here", file=sys.stderr)


def _draw(run_dir: Path) -> None:
    from llama_jax.observe.plots import plot_loss

    picture = read_only_copy(run_dir) / "loss.png"
    plot_loss(picture.parent, picture)
    keep(run_dir, picture)
    print(f"picture: {shown(run_dir / picture.name)}", file=sys.stderr)
