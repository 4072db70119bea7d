"""Score a checkpoint on held-out documents, source by source."""

import dataclasses
import io
import itertools
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import tyro
from tyro.conf import Positional

from llama_jax.cli.run_reader import read_config, read_model
from llama_jax.config import MeshConfig, RunConfig
from llama_jax.remote.objects import shown
from llama_jax.remote.run_files import read_only_copy

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from llama_jax.train.evaluate import Score

_DESCRIPTION = """Scores a checkpoint on the held-out documents of its dataset, source by source.

Loss is in nats per token, which depends on the tokenizer, and in bits per byte of text, which
does not.

example:
  llama-jax eval demo_run/model
  llama-jax eval demo_run/model --step 200 --num-batches 0 --json"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What to score, and how much.

    Attributes:
        run_dir: Folder that `llama-jax train` wrote.
        step: Of the checkpoint; the newest by default.
        num_batches: Batches of the run's size scored a source; 0 scores all there are. As in the
            run's config by default.
        data_directory: Dataset to score on; the run's own by default. It must have the same
            tokenizer.
        mesh: Devices along each axis; by default as the run has them, if there are as many.
        json: Whether to print the scores as JSON on stdout.
    """

    run_dir: Positional[Path]
    step: int | None = None
    num_batches: int | None = None
    data_directory: str = ""
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    json: bool = False


def main(argv: list[str]) -> int:
    """Runs the command; see `--help`."""
    options = tyro.cli(Options, prog="llama-jax eval", description=_DESCRIPTION, args=argv)
    asked = options.run_dir
    options = dataclasses.replace(options, run_dir=read_only_copy(asked))
    mesh = options.mesh if any(argument.startswith("--mesh") for argument in argv) else None
    config = _resolve(read_config(options.run_dir), options)
    started = time.monotonic()
    from llama_jax.train import processes

    processes.join()
    with processes.failing_alone():
        processes.meet()
        step, scores = _evaluate(options, config, mesh)
    if not processes.is_first():
        return 0
    document = {
        "run_dir": shown(asked),
        "name": config.name,
        "step": step,
        "held_out": {source: score.to_json() for source, score in scores.items()},
        "seconds": round(time.monotonic() - started, 3),
    }
    print(f"{config.name} at step {step:,}, held-out documents:", file=sys.stderr)
    for source, score in scores.items():
        print(f"  {source}: {score}", file=sys.stderr)
    if options.json:
        print(json.dumps(document))
    return 0


def _resolve(config: RunConfig, options: Options) -> RunConfig:
    """The run's config with the command's own choices in it, checked again."""
    evaluate, data = config.evaluate, config.data
    if options.num_batches is not None:
        evaluate = dataclasses.replace(evaluate, num_batches=options.num_batches)
    if options.data_directory:
        # Other data has other sources: all of them are scored.
        data = dataclasses.replace(data, directory=options.data_directory, mixture=())
        config = dataclasses.replace(config, stream=None)
    return dataclasses.replace(config, evaluate=evaluate, data=data)


def _evaluate(
    options: Options, config: RunConfig, asked: MeshConfig | None
) -> tuple[int, dict[str, "Score"]]:
    from llama_jax.cli.compilation_cache import enable_compilation_cache

    enable_compilation_cache()
    from llama_jax.cli.pipelines import open_raw
    from llama_jax.observe.progress import Progress
    from llama_jax.sharding import num_shards, use_layout
    from llama_jax.train import processes
    from llama_jax.train.data import open_data
    from llama_jax.train.evaluate import Evaluator
    from llama_jax.train.feed import local_rows, make_to_devices
    from llama_jax.train.same_data import check_tokenizer

    with (
        use_layout(mesh := _make_mesh(config.mesh, asked)),
        open_data(config, options.run_dir, open_raw, write=False) as data,
    ):
        check_tokenizer(options.run_dir, data)
        # Rows that are added are padding: they change nothing, and any mesh can split them.
        shards = num_shards("batch")
        batch_size = -(-config.train.batch_size // shards) * shards
        train = dataclasses.replace(
            config.train, batch_size=batch_size, batch_ramp=(), accumulation_steps=1
        )
        config = dataclasses.replace(config, train=train)
        rows = local_rows(config, mesh, batch_size)
        model = read_model(options.run_dir, config, options.step)
        evaluator = Evaluator(
            model.graphdef,
            config,
            data.held_out(rows=rows, batch_size=batch_size),
            to_devices=make_to_devices(config, mesh, rows, batch_size),
        )
        file = sys.stderr if processes.is_first() else io.StringIO()
        done = itertools.count(1)
        with Progress("eval", total=evaluator.num_batches, unit="batches", file=file) as progress:
            return model.step, evaluator(model.params, lambda: progress.advance(next(done)))


def _make_mesh(of_run: MeshConfig, asked: MeshConfig | None) -> "Mesh":
    """The mesh that was asked for, or the run's, or all devices if that does not fit them."""
    from llama_jax.sharding import make_mesh

    if asked is not None:
        return make_mesh(asked)
    try:
        return make_mesh(of_run)
    except ValueError as misfit:
        from llama_jax.train import processes

        if processes.is_first():
            print(f"the run's mesh is not used: {misfit}", file=sys.stderr)
            print("all devices split parameters and batch; --mesh lays them out", file=sys.stderr)
        return make_mesh(MeshConfig())
