"""The checkpoint of a run that a conversion reads, in a folder or in a bucket."""

import dataclasses
import hashlib
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_jax.cli.run_reader import find_run_tokenizer
from llama_jax.config import RunConfig
from llama_jax.remote.objects import Objects, Url
from llama_jax.remote.run_files import read_only_copy

if TYPE_CHECKING:
    from llama_jax.checkpoint import Checkpointer
    from llama_jax.checkpoint.layer_reader import SavedArray


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """Parameters of one checkpoint, not yet read.

    Attributes:
        place: Its folder, or where it is in a bucket.
        step: Updates done.
        params: Arrays by dotted path.
        meta: What the checkpoint says beside them.
        identity: What no other checkpoint has: the digest of its manifest.
    """

    identity: str
    place: Path | Url
    step: int
    params: "dict[str, SavedArray]"
    meta: dict[str, Any]

    @property
    def dtypes(self) -> list[str]:
        """Of the arrays: one, or several."""
        return sorted({array.dtype for array in self.params.values()})

    @property
    def imported(self) -> dict[str, Any]:
        """What the parameters were imported from, if they were, updates since included."""
        return self.meta.get("imported") or {}


def open_run(place: Path, step: int | None) -> tuple[Path, int | None]:
    """A folder with the small files of a run, and the step that is meant.

    Args:
        place: Of the run, or of one of its checkpoints; in a folder or in a bucket.
        step: That was asked for apart from it.

    Raises:
        StorageError: If the bucket cannot be read.
    """
    if place.parent.name == "checkpoints" and place.name.isdecimal():
        place, step = place.parent.parent, int(place.name) if step is None else step
    return read_only_copy(place), step


def open_checkpoint(run_dir: Path, config: RunConfig, step: int | None) -> Checkpoint:
    """Opens a checkpoint whose files are as they were written; arrays are read when asked for.

    Raises:
        ValueError: If there is no such checkpoint.
        CheckpointError: If it is damaged.
    """
    from llama_jax.checkpoint import Checkpointer
    from llama_jax.checkpoint.layer_reader import saved_arrays
    from llama_jax.cli.run_reader import choose_step

    with Checkpointer(run_dir / "checkpoints", read_only=True) as checkpointer:
        step = choose_step(checkpointer, run_dir, config, step)
        place = checkpointer.directory / str(step)
        params = dict(saved_arrays(place))
        verify_arrays(checkpointer, step, params, "params.")
        meta = checkpointer.meta(step)
    return Checkpoint(
        identity=_identity(place),
        place=place,
        step=step,
        params=params,
        meta=meta,
    )


def verify_arrays(
    checkpointer: "Checkpointer", step: int, arrays: "dict[str, SavedArray]", prefix: str
) -> None:
    """Compares the files of arrays with their checksums, unless that is done as they are copied.

    Args:
        checkpointer: Of the run.
        step: Of the checkpoint.
        arrays: That will be read.
        prefix: With which their names begin. Of a checkpoint in a bucket nothing else is fetched.

    Raises:
        CheckpointError: If a file is missing or changed.
    """
    from llama_jax.checkpoint import CheckpointError

    manifest = checkpointer.verify(step)
    # Files of one layer each are compared as they are copied.
    if next(packed(arrays), None) is None:
        return
    if isinstance(checkpointer.directory, Path):
        checkpointer.verify(step, deep=True)
        return
    objects = Objects(checkpointer.directory / str(step))
    names = [name for name in manifest.files if name.startswith(f"state/{prefix}")]
    # Those that Orbax packed together do not tell what is in them.
    for name in names or manifest.files:
        found, wanted = objects.read(name) or b"", manifest.files[name]
        if (len(found), zlib.crc32(found)) != (wanted.size, wanted.crc32):
            raise CheckpointError(
                f"{objects.url / name} is not what its checkpoint's manifest says: its content "
                "changed, or it is missing. Take another checkpoint (--step), or another copy."
            )


def packed(arrays: "dict[str, SavedArray]") -> Iterator["SavedArray"]:
    """The arrays, by path, whose layers are not files of their own."""
    for path, array in arrays.items():
        if array.layer_file(0 if path.startswith("blocks.") else -1) is None:
            yield array


def _identity(place: Path | Url) -> str:
    from llama_jax.checkpoint import manifest

    if isinstance(place, Path):
        content = (place / manifest.NAME).read_bytes()
    else:
        content = Objects(place).read(manifest.NAME) or b""
    return hashlib.sha256(content).hexdigest()


def vocabulary_rows(run_dir: Path, config: RunConfig, meta: dict[str, Any]) -> int:
    """Rows of the vocabulary's tables that mean something: those behind them only pad."""
    imported = meta.get("imported") or {}
    if imported and meta["step"] == imported.get("step", meta["step"]):
        return imported["vocab_size"]
    from llama_jax.data.tokenizer import load_tokenizer

    # Training may have given rows that only padded the import's tables to a larger tokenizer.
    known = imported.get("vocab_size", 0)
    try:
        tokenizer = load_tokenizer(find_run_tokenizer(run_dir, config))
    except ValueError:
        return known or config.model.vocab_size
    return min(max(tokenizer.vocab_size, known), config.model.vocab_size)
