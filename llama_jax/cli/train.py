"""Pretrain a model; started again, it resumes by itself."""

import dataclasses
import json
import math
import os
import sys
from pathlib import Path
from typing import Any

from llama_jax.cli.recipe_args import parse_recipe
from llama_jax.config import RunConfig

_DESCRIPTION = """Pretrains a model; started again with the same folder, it goes on from the last checkpoint.

Ctrl-C and SIGTERM finish the update, save, and exit with 75; start again to go on.

example:
  llama-jax train demo --run-dir demo_run/model --train.num-steps 200
  llama-jax train demo --init-from demo_run/model@100 --run-dir cooled --train.num-steps 150"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Flags of the command beside the recipe's fields.

    Attributes:
        run_dir: Folder of the run; runs/NAME by default, NAME being the recipe's.
        init_from: RUN or RUN@STEP: begin a new run from another's checkpoint, with its
            parameters, optimizer state, step and place in the data.
        json: Whether to print a summary as JSON on stdout at the end.
    """

    run_dir: Path | None = None
    init_from: str = ""
    json: bool = False


def main(argv: list[str]) -> int:
    """Runs the command; see `--help`."""
    config, options = parse_recipe(
        argv, prog="llama-jax train", description=_DESCRIPTION, extra=Options
    )
    run_dir = options.run_dir or Path("runs") / config.name
    enable_compilation_cache()
    from llama_jax.train.beginning import parse_origin
    from llama_jax.train.guards import TrainingFailed
    from llama_jax.train.loop import train

    origin = parse_origin(options.init_from) if options.init_from else None
    try:
        outcome = train(config, run_dir, origin=origin)
    except TrainingFailed as failure:
        print(f"llama-jax train: failed: {failure}", file=sys.stderr)
        return 1
    document = _document(config, run_dir, outcome)
    _print_table(document)
    if options.json:
        print(json.dumps(document))
    return 75 if outcome.stopped_by else 0


def enable_compilation_cache() -> None:
    """Keeps compiled programs for the next start, unless JAX's own variable says where."""
    import jax

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        jax.config.update("jax_compilation_cache_dir", str(Path(base) / "llama_jax" / "xla"))
    # Small programs too: there are many of them, and on CPU each takes its time.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _document(config: RunConfig, run_dir: Path, outcome: Any) -> dict[str, Any]:
    return {
        "name": config.name,
        "run_dir": str(run_dir),
        "step": outcome.step,
        "num_steps": config.train.num_steps,
        "samples": outcome.samples,
        "tokens": outcome.tokens,
        "skipped_updates": outcome.skipped_updates,
        "stopped_by": outcome.stopped_by or None,
        "loss_nats_per_token": _finite(outcome.loss_nats_per_token),
        "held_out": {
            source: {
                "loss_nats_per_token": score.loss_nats_per_token,
                "bits_per_byte": score.bits_per_byte,
                "tokens": score.tokens,
                "documents": score.documents,
            }
            for source, score in outcome.held_out.items()
        },
        "seconds_to_first_step": round(outcome.seconds_to_first_step, 3),
        "seconds": round(outcome.seconds, 3),
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _print_table(document: dict[str, Any]) -> None:
    stopped = f", stopped by {document['stopped_by']}" if document["stopped_by"] else ""
    rows = [
        ("steps", f"{document['step']:,} of {document['num_steps']:,}{stopped}"),
        ("tokens", f"{document['tokens']:,}"),
        ("time", f"{document['seconds']:,.1f} s"),
    ]
    if document["loss_nats_per_token"] is not None:
        rows.insert(2, ("training loss", f"{document['loss_nats_per_token']:.4f} nats/token"))
    if document["skipped_updates"]:
        rows.append(("skipped updates", str(document["skipped_updates"])))
    for source, score in document["held_out"].items():
        loss = f"{score['loss_nats_per_token']:.4f} nats/token"
        bits = f"{score['bits_per_byte']:.4f} bits/byte"
        rows.append((f"held out: {source}", f"{loss}, {bits}, {score['documents']:,} documents"))
    rows.append(("run", document["run_dir"]))
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value}", file=sys.stderr)
    if document["stopped_by"]:
        print("start again to go on from here", file=sys.stderr)
