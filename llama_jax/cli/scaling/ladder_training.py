"""One run of a ladder: trained if it is not yet, and what it came to."""

import json
import math
from pathlib import Path
from typing import Any

from llama_jax.atomic import write_atomically
from llama_jax.cli.scaling.ladder_runs import LadderRun
from llama_jax.config import RunConfig


def train_run(run: LadderRun, out: Path) -> dict[str, Any] | None:
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
    result = record(run, loss, diverged)
    write_atomically(path, json.dumps(result, indent=2) + "\n")
    return result


def record(run: LadderRun, loss: float, diverged: str) -> dict[str, Any]:
    """What is kept of a run, as JSON has it; `diverged` is why it does not count."""
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
