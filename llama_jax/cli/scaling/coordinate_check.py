"""Train a recipe for a few updates at several sizes, and see whether its activations grow."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from llama_jax.config import CompleteP, GuardConfig, RunConfig, WarmupStableDecay

USAGE = """usage: llama-jax scaling coordinate-check RECIPE (--widths N ... | --depths N ...)
           [--data DIR] [--steps N] [--picture FILE] [--json]

Trains a recipe for a few updates at several widths, or depths, with its parameterisation (CompleteP
with the recipe's own sizes as the base, where it has none) and without, on the same batches. Prints
the mean magnitude of the residual stream and of the logits at each size, and the exponent by which
they grow. What is right is near 0 everywhere; what grows will not train at the next size up.

example:
  llama-jax scaling coordinate-check demo --data demo_run/data --widths 64 128 256"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Options:
    """Options of `scaling coordinate-check`."""

    data: str = ""
    """Folder of token shards, in place of the recipe's."""
    widths: tuple[int, ...] = ()
    """Widths of the residual stream; heads, and the MLP in proportion, come with them."""
    depths: tuple[int, ...] = ()
    """Numbers of layers, in place of widths."""
    steps: int = 6
    """Updates, all at the recipe's peak learning rate."""
    batch_size: int = 8
    """Rows of an update."""
    seq_len: int = 128
    """Tokens of a row."""
    picture: Path | None = None
    """File to draw magnitudes into, .png or .svg."""
    json: bool = False
    """Print one JSON document on stdout."""


def main(argv: list[str]) -> int:
    """Runs `llama-jax scaling coordinate-check`."""
    if not argv or argv[0].startswith("-"):
        asked = argv[:1] in (["-h"], ["--help"])
        print(USAGE, file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    import tyro

    from llama_jax.recipe import load_recipe

    options = tyro.cli(
        _Options,
        prog=f"llama-jax scaling coordinate-check {argv[0]}",
        description=USAGE.partition("\n\n")[2],
        args=argv[1:],
    )
    axis, sizes = _sizes(options)
    config = _short(load_recipe(argv[0]), options)
    base = config.parameterisation or CompleteP(
        base_embed_dim=config.model.embed_dim,
        base_head_dim=config.model.head_dim,
        base_num_layers=config.model.num_layers,
    )
    answer = {"axis": axis, "sizes": list(sizes), "steps": options.steps}
    for name, parameterisation in (("standard", None), (type(base).__name__, base)):
        based = dataclasses.replace(config, parameterisation=parameterisation)
        answer[name] = _magnitudes(based, axis, sizes)
    if options.picture is not None:
        from llama_jax.scaling.width_pictures import plot_coordinates

        panels = {name: value for name, value in answer.items() if isinstance(value, dict)}
        plot_coordinates(axis, sizes, panels, options.picture)
        print(f"written: {options.picture}", file=sys.stderr)
    if options.json:
        print(json.dumps(answer, indent=2))
    else:
        _print(answer)
    return 0


def _sizes(options: _Options) -> tuple[str, tuple[int, ...]]:
    if options.widths and options.depths:
        raise ValueError("--widths and --depths: give one of the two; the other is the recipe's.")
    axis, sizes = ("depths", options.depths) if options.depths else ("widths", options.widths)
    if len(set(sizes)) < 2 or min(sizes) < 1:
        raise ValueError(f"--{axis}={sizes} must be two sizes or more, all positive.")
    if min(options.steps, options.batch_size, options.seq_len) < 1:
        raise ValueError("--steps, --batch-size and --seq-len must be positive.")
    return axis, tuple(sorted(set(sizes)))


def _short(config: RunConfig, options: _Options) -> RunConfig:
    """The recipe, cut down to a few updates of small batches."""
    data = dataclasses.replace(
        config.data,
        seq_len=min(options.seq_len, config.data.seq_len),
        directory=options.data or config.data.directory,
    )
    train = dataclasses.replace(
        config.train,
        num_steps=options.steps,
        batch_size=options.batch_size,
        batch_ramp=(),
        accumulation_steps=1,
    )
    return dataclasses.replace(
        config,
        data=data,
        train=train,
        schedule=WarmupStableDecay(warmup_steps=0, decay_steps=0),
        compute=dataclasses.replace(config.compute, loss_chunks=1),
        guards=GuardConfig(),
        stream=None,
    )


def _magnitudes(config: RunConfig, axis: str, sizes: tuple[int, ...]) -> dict[str, Any]:
    """Magnitudes at the end of the run of each size, and how they grow, by place."""
    from llama_jax.cli.compilation_cache import enable_compilation_cache
    from llama_jax.data.dataset import open_dataset
    from llama_jax.sharding import make_mesh, use_layout
    from llama_jax.train.coordinates import growth, measure, resized
    from llama_jax.train.feed import feed
    from llama_jax.train.program import begin_compiling

    enable_compilation_cache()
    found: dict[str, list[float]] = {}
    for size in sizes:
        width = size if axis == "widths" else config.model.embed_dim
        depth = size if axis == "depths" else config.model.num_layers
        model = resized(config.model, embed_dim=width, num_layers=depth)
        sized = dataclasses.replace(config, model=model)
        dataset = open_dataset(
            sized.data, vocab_size=model.vocab_size, batch_size=sized.train.batch_size
        )
        with use_layout(mesh := make_mesh(sized.mesh)):
            batches = list(feed(sized, mesh, dataset, step=0, first_sample=0))
            end = measure(begin_compiling(sized, mesh), batches)[-1]
        blocks = {f"block {number}": value for number, value in enumerate(end.streams) if number}
        if axis == "depths":  # of the blocks, the last one alone is in all of them
            blocks = {"last block": end.streams[-1]}
        for place, value in {"embedding": end.streams[0], **blocks, "logits": end.logits}.items():
            found.setdefault(place, []).append(value)
        name = type(config.parameterisation).__name__ if config.parameterisation else "standard"
        print(f"{name}, {axis[:-1]} {size}: logits {end.logits:.4f}", file=sys.stderr)
    return {
        place: {"magnitudes": values, "exponent": growth(sizes, values)}
        for place, values in found.items()
    }


def _print(answer: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    for name, places in answer.items():
        if not isinstance(places, dict):
            continue
        title = f"{name}: mean |activation| after {answer['steps']} updates"
        table = Table(title=title, title_justify="left", box=None, pad_edge=False)
        table.add_column(answer["axis"][:-1], no_wrap=True)
        for size in answer["sizes"]:
            table.add_column(str(size), justify="right")
        table.add_column("exponent", justify="right")
        for place, seen in places.items():
            values = [f"{value:.4g}" for value in seen["magnitudes"]]
            table.add_row(place, *values, f"{seen['exponent']:+.2f}")
        console.print(table)
