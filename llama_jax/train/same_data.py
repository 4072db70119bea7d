"""Whether a run reads the data that it began with: its place in them means nothing in others.

`data.json` in a run's folder and `meta.json` of its checkpoints say what tells its data from
others; where they lie does not matter. The raw files of a stream are compared by the stream.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llama_jax import recipe
from llama_jax.atomic import write_atomically
from llama_jax.checkpoint import Checkpointer
from llama_jax.checksum import file_sha256
from llama_jax.config import BuildConfig
from llama_jax.data.identity import Identity, differences
from llama_jax.data.tokenizer import find_tokenizer
from llama_jax.train.beginning import Beginning, Origin
from llama_jax.train.data import Data

NAME = "data.json"


def keep_identity(run_dir: Path, data: Data) -> None:
    """Notes in a run's folder what it reads, before its first checkpoint does."""
    write_atomically(run_dir / NAME, json.dumps(data.identity.to_json(), indent=2) + "\n")


def known_identity(run_dir: Path, beginning: Beginning) -> Identity | None:
    """Of what a run has read so far; None where it is new, or older than this record."""
    if beginning.resumed and beginning.data is not None:
        return beginning.data
    path = run_dir / NAME
    return Identity.from_json(json.loads(path.read_text())) if path.is_file() else None


def check_same_data(run_dir: Path, beginning: Beginning, data: Data) -> None:
    """Refuses data with which a run cannot go on.

    Raises:
        ValueError: Naming what differs, and what to do.
    """
    known = known_identity(run_dir, beginning)
    if known is None:
        if beginning.origin is not None and beginning.data is not None:
            _check_branch(beginning.origin, beginning.data, data)
    elif lines := differences(known, data.identity):
        raise ValueError(
            f"{data.where}: the run in {run_dir} began with other data (then -> now):\n  "
            + "\n  ".join(lines)
            + "\nPut those back, in this folder or another (--data.directory), or name another "
            "--run-dir for these"
            + (f": with --init-from {run_dir} --data-from-start" if beginning.resumed else "")
            + _same_tokenizer(known, data, run_dir)
            + "."
        )


def _same_tokenizer(wanted: Identity, data: Data, run_dir: str | Path) -> str:
    if wanted.tokenizer == data.identity.tokenizer:
        return ""
    return f", built with --tokenizer-file {run_dir}/{data.tokenizer_name}"


def _check_branch(origin: Origin, theirs: Identity, data: Data) -> None:
    came_from, ours = f"init_from={origin.run_dir}@{origin.step}", data.identity
    if ours.tokenizer != theirs.tokenizer:
        raise ValueError(
            f"{came_from}: {data.where} has another tokenizer ({ours.tokenizer[:12]}) than that "
            f"run ({theirs.tokenizer[:12]}), whose parameters would take each token for another. "
            f"Build the data with --tokenizer-file {origin.run_dir}/{data.tokenizer_name}."
        )
    if origin.data_from_start:
        return
    # Weights may differ: the documents of each source go on in the order in which they were.
    lines = [
        f"source {name!r}: {theirs.sources.get(name) or '(absent)'} -> {source}"
        for name, source in ours.sources.items()
        if name not in theirs.sources or source.sha256 != theirs.sources[name].sha256
    ]
    stream, here = _stream_of(origin), data.config.stream
    if stream != here:
        names = (each.name if each else "(none)" for each in (stream, here))
        lines.append(f"stream: {' -> '.join(names)}")
    if lines:
        raise ValueError(
            f"{came_from}: that run read other data (there -> here):\n  "
            + "\n  ".join(lines)
            + "\nIts place in the data means nothing in these: give --data-from-start to read them "
            "from their beginning, or the data of that run."
        )


def _stream_of(origin: Origin) -> BuildConfig | None:
    checkpoints = Checkpointer(Path(origin.run_dir) / "checkpoints", read_only=True)
    stream = checkpoints.meta(origin.step)["config"].get("stream")
    return recipe.from_json(json.dumps(stream), BuildConfig) if stream else None


def check_still_the_data(meta: Mapping[str, Any], data: Data) -> None:
    """Refuses to name what a run read, where other data lie there by now.

    Args:
        meta: Of a checkpoint of the run.
        data: Of its config.

    Raises:
        ValueError: Naming what differs.
    """
    if meta.get("data") and (lines := differences(Identity.from_json(meta["data"]), data.identity)):
        raise ValueError(
            f"{data.where} has other data than the run read (then -> now):\n  "
            + "\n  ".join(lines)
            + "\nPut those back to see what it read."
        )


def check_tokenizer(run_dir: Path, data: Data) -> None:
    """Refuses to score a run on the tokens of another tokenizer.

    Raises:
        ValueError: If the run has kept another tokenizer than that of the data.
    """
    try:
        ours = find_tokenizer(run_dir)
    except ValueError:  # of a run that was never trained here
        return
    if (sha256 := file_sha256(ours)) != data.identity.tokenizer:
        raise ValueError(
            f"{data.where} has another tokenizer ({data.identity.tokenizer[:12]}) than the run "
            f"({sha256[:12]}), which would take each token for another. Build the data with "
            f"--tokenizer-file {ours}."
        )
