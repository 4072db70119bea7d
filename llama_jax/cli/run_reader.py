"""What a finished or running run has on disk, for the commands that read it and change nothing."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_jax.config import RunConfig
from llama_jax.recipe import from_json

if TYPE_CHECKING:
    from llama_jax.checkpoint import Checkpointer
    from llama_jax.convert.origin import Losses


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SavedModel:
    """Parameters of one checkpoint, in the current layout.

    Attributes:
        step: Updates done.
        graphdef: Of the model, for `nnx.merge`.
        params: Float32, as they were saved.
        meta: What the checkpoint says beside its arrays.
    """

    step: int
    graphdef: Any
    params: Any
    meta: dict[str, Any]


def read_config(run_dir: Path) -> RunConfig:
    """The config of a run.

    Raises:
        ValueError: If the folder is no run's.
    """
    path = run_dir / "config.json"
    if not path.is_file():
        raise ValueError(
            f"RUN_DIR={str(run_dir)!r} has no config.json; name a folder that `llama-jax train` "
            "wrote."
        )
    return from_json(path.read_text(encoding="utf-8"))


def find_run_tokenizer(run_dir: Path, config: RunConfig) -> Path:
    """The tokenizer's file: the run's own copy, or that of its dataset.

    Raises:
        ValueError: If neither is there.
    """
    from llama_jax.data.tokenizer import find_tokenizer

    try:
        return find_tokenizer(run_dir)
    except ValueError:
        return find_tokenizer(config.data.directory)


def read_model(
    run_dir: Path, config: RunConfig, step: int | None, *, verify: bool = True
) -> SavedModel:
    """Reads the parameters of a checkpoint, and nothing of the optimizer's state.

    Args:
        run_dir: Folder of the run.
        config: Of the run.
        step: Of the checkpoint; None takes the newest.
        verify: Whether to compare the checksums of all files first, not their sizes alone.

    Raises:
        ValueError: If there is no such checkpoint.
        CheckpointError: If it is damaged; names the newest good one.
    """
    from llama_jax.checkpoint.checkpointer import Checkpointer
    from llama_jax.model.init import abstract_params

    with Checkpointer(run_dir / "checkpoints", read_only=True) as checkpointer:
        step = choose_step(checkpointer, run_dir, config, step)
        graphdef, abstract = abstract_params(config.model, config.compute)
        wanted = {"params": abstract}
        state, meta = checkpointer.restore(step, wanted, partial=True, deep=verify)
    return SavedModel(step=step, graphdef=graphdef, params=state["params"], meta=meta)


def choose_step(
    checkpointer: "Checkpointer", run_dir: Path, config: RunConfig, step: int | None
) -> int:
    """The step that was asked for, or the newest; of those that are trusted.

    Raises:
        ValueError: If there is no such checkpoint, or it is not trusted.
    """
    from llama_jax.train.taint import pending

    steps = checkpointer.steps()
    if not steps:
        raise ValueError(
            f"RUN_DIR={str(run_dir)!r} has no checkpoint yet; `llama-jax train` writes the "
            f"first after checkpoint.every_steps={config.checkpoint.every_steps} updates."
        )
    why = ""
    if (taint := pending(run_dir)) is not None:
        steps, why = [there for there in steps if there <= taint.since_step], f", for {taint}"
        if not steps:
            raise ValueError(f"RUN_DIR={str(run_dir)!r} has no checkpoint to use{why}.")
    if step is not None and step not in steps:
        there_are = ", ".join(map(str, steps))
        raise ValueError(f"--step={step}: there is no such checkpoint; there are {there_are}{why}.")
    return steps[-1] if step is None else step


def latest_losses(run_dir: Path, step: int) -> "Losses":
    """Losses of a run, the latest that were recorded up to an update."""
    from llama_jax.convert.origin import Losses
    from llama_jax.observe.writers import read_metrics

    path = run_dir / "metrics.jsonl"
    losses = Losses()
    for record in read_metrics(path) if path.is_file() else []:
        if (now := int(record["step"])) > step:
            continue
        if "loss_nats_per_token" in record:
            losses = dataclasses.replace(
                losses, training=record["loss_nats_per_token"], training_step=now
            )
        parts = {name: name.split("/") for name in record}
        held_out = {
            part[1] if len(part) == 3 else "all sources": record[name]
            for name, part in parts.items()
            if part[0] == "heldout" and part[-1] == "loss_nats_per_token"
        }
        if held_out:
            losses = dataclasses.replace(losses, held_out=held_out, held_out_step=now)
    return losses
