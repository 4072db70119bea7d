"""What a run has seen so far, from its checkpoints alone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llama_jax import recipe
from llama_jax.checkpoint import Checkpointer
from llama_jax.config import RunConfig
from llama_jax.data.dataset import Document
from llama_jax.train.beginning import Beginning
from llama_jax.train.data import Data, OpenRaw, open_data
from llama_jax.train.same_data import check_still_the_data
from llama_jax.train.taint import passed_rows, pending, read_taints

_SAMPLES_AT_ONCE = 1024


def samples_seen(run_dir: Path, step: int | None = None) -> list[range]:
    """Samples of the global order that a run's own updates consumed up to a checkpoint.

    A run that branched off another begins where that one stood; one that rewound passed over some.

    Args:
        run_dir: Folder of the run.
        step: Of the checkpoint; the newest by default.

    Raises:
        ValueError: If the run has no checkpoint, or none of that step.
        CheckpointError: If it is damaged.
    """
    meta = _meta(run_dir, step)
    config: RunConfig = recipe.from_json((run_dir / "config.json").read_text())
    stood = Beginning(
        step=meta["step"], samples=meta["samples"], passed=dict(meta.get("passed", ()))
    )
    spans, first = [], meta["first_sample"]
    for after, rows in sorted(stood.passed.items()):
        stop = stood.samples_at(after, config)
        spans.append(range(first, stop))
        first = stop + rows
    return [*spans, range(first, meta["samples"])]


def _meta(run_dir: Path, step: int | None) -> dict[str, Any]:
    checkpoints = Checkpointer(run_dir / "checkpoints", read_only=True)
    step = checkpoints.latest_step() if step is None else step
    if step is None:
        raise ValueError(f"RUN_DIR={str(run_dir)!r} has no checkpoint yet.")
    if step not in (steps := checkpoints.steps()):
        raise ValueError(
            f"step={step} of {str(run_dir)!r}: there is no such checkpoint; there are "
            f"{', '.join(map(str, steps)) or 'none'}."
        )
    return checkpoints.meta(step)


def token_order(run_dir: Path, step: int) -> int:
    """Which tokens a run fed to its devices up to a checkpoint, and in which order.

    Two runs have the same number where they fed the same rows in the same order, whatever the
    sample counter says; see `token_order.py`.

    Raises:
        CheckpointError: If there is no such checkpoint.
    """
    return Checkpointer(run_dir / "checkpoints", read_only=True).meta(step)["token_order"]


def documents_seen(
    run_dir: Path, step: int | None = None, *, open_raw: OpenRaw | None = None
) -> Iterator[Document]:
    """Documents that a run saw up to a checkpoint, in order; one seen again is named again.

    Args:
        run_dir: Folder of the run; its dataset must be where it was.
        step: Of the checkpoint; the newest by default.
        open_raw: Opens raw documents; only a stream needs it, which is read and tokenised again.

    Raises:
        ValueError: As `samples_seen` and `open_data`, or if the data are others by now.
    """
    config: RunConfig = recipe.from_json((run_dir / "config.json").read_text())
    spans = samples_seen(run_dir, step)
    with open_data(config, run_dir, open_raw, write=False) as data:
        check_still_the_data(_meta(run_dir, step), data)
        for seen in spans:
            for first in range(seen.start, seen.stop, _SAMPLES_AT_ONCE):
                count = min(_SAMPLES_AT_ONCE, seen.stop - first)
                yield from data.dataset.documents_of(first, count)


def samples_at_step(run_dir: Path, step: int, data: Data | None = None) -> range:
    """Samples of the global order that one update read, or will read.

    Args:
        run_dir: Folder of the run.
        step: Of the update, counted from 1.
        data: In which the samples will be looked up.

    Raises:
        ValueError: If the run has no such update of its own, or read other data.
        CheckpointError: If its newest checkpoint cannot be read.
    """
    config: RunConfig = recipe.from_json((run_dir / "config.json").read_text())
    checkpoints = Checkpointer(run_dir / "checkpoints", read_only=True)
    # From where the next start will go on, for it passes over what pending taints say.
    taint = pending(run_dir)
    trusted = (s for s in checkpoints.steps() if taint is None or s <= taint.since_step)
    newest = max(trusted, default=None)
    meta = {"step": 0, "samples": 0, "first_sample": 0}
    if newest is not None:
        meta = checkpoints.meta(newest)
    if data is not None:
        check_still_the_data(meta, data)
    stood = Beginning(
        step=meta["step"], samples=meta["samples"], passed=passed_rows(read_taints(run_dir))
    )
    if not 1 <= step <= config.train.num_steps:
        raise ValueError(
            f"STEP={step} must be an update of the run, 1 to {config.train.num_steps}."
        )
    samples = stood.samples_of(step, config)
    if samples.start < meta["first_sample"]:
        raise ValueError(
            f"STEP={step}: the run in {run_dir} branched off later; ask the run it came from."
        )
    return samples
