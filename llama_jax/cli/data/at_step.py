"""List the documents that one update of a run read, and compute its rows again alone."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_jax.remote.run_files import read_only_copy

if TYPE_CHECKING:
    from llama_jax.train.data import Data

USAGE = """usage: llama-jax data at-step RUN_DIR STEP [--replay] [--json]

Lists the documents that update STEP, counted from 1, read: row of the global order, source, number
in the shards and id. With --replay, loss and norm of the gradient of each row alone stand before
them, with the parameters of the run's last checkpoint before the update, highest loss first.

example: llama-jax data at-step runs/llama2_7b 41207 --replay"""

_REPLAYED = ("loss_nats_per_token", "grad_norm")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Options:
    """Options of `data at-step`."""

    replay: bool = False
    """Compute each row again."""
    json: bool = False
    """Print one JSON document."""


def main(argv: list[str]) -> int:
    """Runs `llama-jax data at-step`."""
    if len(argv) < 2 or argv[0].startswith("-"):
        asked = argv[:1] in (["-h"], ["--help"])
        print(USAGE, file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    import tyro

    from llama_jax.cli.pipelines import open_raw
    from llama_jax.cli.run_reader import read_config
    from llama_jax.train.data import open_data
    from llama_jax.train.history import samples_at_step

    prog = f"llama-jax data at-step {argv[0]} {argv[1]}"
    options = tyro.cli(_Options, prog=prog, description=USAGE.partition("\n\n")[2], args=argv[2:])
    run_dir = read_only_copy(Path(argv[0]))
    config = read_config(run_dir)
    if not argv[1].isdecimal():
        raise ValueError(f"STEP={argv[1]!r} must be the number of an update, counted from 1.")
    step = int(argv[1])
    with open_data(config, run_dir, open_raw, write=False) as data:
        rows: list[dict[str, Any]] = [
            {
                "sample": sample,
                "documents": [d._asdict() for d in data.dataset.documents_of(sample, 1)],
            }
            for sample in samples_at_step(run_dir, step, data)
        ]
        if options.replay:
            _replay(run_dir, step, data, rows)
            rows.sort(key=lambda row: -row["loss_nats_per_token"])
    if options.json:
        print(json.dumps({"step": step, "rows": rows}))
        return 0
    for row in rows:
        numbers = [f"{row[name]:.4f}" for name in _REPLAYED if name in row]
        for document in row["documents"]:
            print("\t".join([str(row["sample"]), *numbers, *map(str, document.values())]))
    return 0


def _replay(run_dir: Path, step: int, data: "Data", rows: list[dict[str, Any]]) -> None:
    """Adds loss and norm of the gradient to each row."""
    import jax
    import optax

    from llama_jax.checkpoint import Checkpointer
    from llama_jax.cli.compilation_cache import enable_compilation_cache
    from llama_jax.cli.run_reader import read_model
    from llama_jax.sharding import make_mesh, num_shards, use_layout
    from llama_jax.train.feed import local_rows, make_to_devices
    from llama_jax.train.step import make_loss_sums

    steps = Checkpointer(run_dir / "checkpoints", read_only=True).steps()
    before = max((saved for saved in steps if saved < step), default=None)
    if before is None:
        raise ValueError(f"--replay: {run_dir} has no checkpoint before update {step}.")
    enable_compilation_cache()
    config = data.config
    # Rows are computed whole, one at a time, once on each device that holds a part of a batch.
    with use_layout(mesh := make_mesh(config.mesh)):
        copies = num_shards("batch")
        train = dataclasses.replace(
            config.train, batch_size=copies, batch_ramp=(), accumulation_steps=1
        )
        one_row = dataclasses.replace(config, train=train)
        to_devices = make_to_devices(one_row, mesh, local_rows(one_row, mesh, copies), copies)
        dataset = data.dataset.resized(copies, range(1))
        model = read_model(run_dir, config, before)
        sums = make_loss_sums(model.graphdef, config.compute, z_loss=config.train.z_loss)

        def mean(params: Any, batch: Any) -> Any:
            total = sums(params, batch)
            weight = jax.numpy.maximum(total.weight, 1.0)
            return (total.nats + total.z) / weight, total.nats / weight

        gradient = jax.value_and_grad(mean, has_aux=True)

        @jax.jit
        def replay(params: Any, batch: Any) -> Any:
            (_, loss), grads = gradient(params, batch)
            return loss, optax.tree.norm(grads)

        for row in rows:
            batch = jax.tree.map(lambda rows: rows.repeat(copies, 0), dataset.batch(row["sample"]))
            numbers = replay(model.params, to_devices(batch))
            row.update(zip(_REPLAYED, map(float, numbers), strict=True))
    print(f"parameters: those of checkpoint {before}", file=sys.stderr)
