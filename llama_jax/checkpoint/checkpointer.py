"""Saves, lists, verifies and restores the checkpoints of one run.

    checkpointer = Checkpointer(run_dir / "checkpoints", config.checkpoint)
    checkpointer.save(step, state, meta)            # returns once the arrays are in host memory
    checkpointer.poll()                             # raises what a background save ran into
    checkpointer.wait()                             # until the last save is on disk
    step = checkpointer.latest_step()               # int | None
    state, meta = checkpointer.restore(step, abstract_state)
    {"params": params}, meta = checkpointer.restore(step, {"params": ...}, partial=True)
    checkpointer.verify(step, deep=True)            # raises CheckpointError
    checkpointer.latest_good_step(deep=True)        # int | None
    checkpointer.close()                            # or use it in a `with` block

Layout of `<directory>/<step>/`: `state/` (zarr3, uncompressed; in a folder, by Orbax in OCDBT),
`meta.json` and `manifest.json`. The manifest comes last: a checkpoint is what has one. The
directory is a folder that all processes share, or a place in a bucket; `local_folder.py` and
`bucket.py` say how a save becomes a checkpoint there, and what a kill leaves.
"""

import dataclasses
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax

from llama_jax.checkpoint import manifest as manifests
from llama_jax.checkpoint import storage
from llama_jax.checkpoint.damage import find_problems
from llama_jax.checkpoint.manifest import CheckpointError, Manifest
from llama_jax.checkpoint.names import named_arrays
from llama_jax.checkpoint.retention import human_bytes, kept_steps, tree_bytes
from llama_jax.checkpoint.shelf import open_shelf
from llama_jax.config import CheckpointConfig
from llama_jax.remote.objects import StorageError, Url


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SaveTiming:
    """What the last complete save cost.

    Attributes:
        step: Updates done when it was saved.
        blocked_seconds: For which the caller of `save` waited.
        total_seconds: From the call until the checkpoint was complete on disk.
        hash_seconds: Of those, for flushing the files to disk and checksums.
        num_bytes: Of the arrays.
    """

    step: int
    blocked_seconds: float
    total_seconds: float
    hash_seconds: float
    num_bytes: int

    def __str__(self) -> str:
        return (
            f"checkpoint {self.step:,}: {human_bytes(self.num_bytes)} in "
            f"{self.total_seconds:.1f} s, of which training waited {self.blocked_seconds:.2f} s"
        )


class Checkpointer:
    """Checkpoints of one run in one folder that all processes share, or in a bucket.

    Attributes:
        directory: Where they are, absolute.

    Args:
        directory: Folder of the checkpoints, made if it is missing; a `gs://` or `s3://` place; or
            a file whose one line names either.
        config: Which checkpoints are kept.
        read_only: Whether to leave the folder alone: nothing is made, cleared or saved.
        before_commit: Called in the first process, in the background, when all is written but the
            manifest: what must be stored if the checkpoint is.
    """

    def __init__(
        self,
        directory: Path | Url,
        config: CheckpointConfig = CheckpointConfig(),
        *,
        read_only: bool = False,
        before_commit: Callable[[], None] = lambda: None,
    ):
        self._shelf = open_shelf(directory)
        self.directory = self._shelf.directory
        self.last_timing: SaveTiming | None = None
        self._config = config
        self._read_only = read_only
        self._before_commit = before_commit
        self._saving: threading.Thread | None = None
        self._error: CheckpointError | None = None
        if not read_only and jax.process_index() == 0:
            self._shelf.prepare()

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, ascending."""
        return self._shelf.complete()

    def latest_step(self) -> int | None:
        """Step of the newest complete checkpoint."""
        return max(self.steps(), default=None)

    def latest_good_step(self, *, deep: bool = False, before: int | None = None) -> int | None:
        """Step of the newest checkpoint whose files are as they were written.

        Args:
            deep: Whether to compare checksums too, not sizes alone.
            before: Looks only at earlier steps than this.
        """
        for step in reversed(self.steps()):
            if (before is None or step < before) and not self.problems(step, deep=deep):
                return step
        return None

    def save(self, step: int, state: Any, meta: dict[str, Any]) -> None:
        """Saves in the background; returns once the arrays are copied to host memory.

        A second save waits for the first one to finish.

        Args:
            step: Updates done; names the checkpoint.
            state: Pytree of arrays, sharded in any way.
            meta: What JSON can hold, kept beside the arrays.

        Raises:
            CheckpointError: If the disk has no room, or the save before this one failed.
            ValueError: If there is a checkpoint of this step already.
        """
        assert not self._read_only, "a read-only checkpointer cannot save"
        self.wait()
        started = time.perf_counter()
        final = self._folder(step)
        if self._shelf.has(step):
            raise ValueError(
                f"checkpoint step={step} exists in {self.directory}; a checkpoint is never "
                "overwritten. Move it away to save this step again."
            )
        arrays = named_arrays(state)
        needed = tree_bytes(arrays)
        meta_text = json.dumps(meta, indent=1) + "\n"
        if (free := self._shelf.free_bytes()) is not None and free < needed:
            raise CheckpointError(self._not_saved(step, needed, "the disk has no room"))
        try:
            self._shelf.begin(step, arrays)
        except Exception as error:
            raise self._failed(step, needed, error) from error
        blocked = time.perf_counter() - started

        def finish() -> None:
            try:
                self._shelf.write(step)
                hashing = time.perf_counter()
                self._commit(step, meta_text, arrays_table)
                done = time.perf_counter()
                self.last_timing = SaveTiming(
                    step=step,
                    blocked_seconds=blocked,
                    total_seconds=done - started,
                    hash_seconds=done - hashing,
                    num_bytes=needed,
                )
            except Exception as error:
                self._error = self._failed(step, needed, error)
                return
            try:
                self._retire()
            except OSError as error:
                self._error = CheckpointError(
                    f"Checkpoint {final} is complete, but an older one could not be deleted: "
                    f"{error}."
                )

        arrays_table = manifests.array_table(arrays)
        # Not a daemon: leaving the program normally waits for the checkpoint.
        self._saving = threading.Thread(target=finish, name=f"checkpoint-{step}")
        self._saving.start()

    def poll(self) -> None:
        """Raises the error of a save that failed in the background, once; never waits.

        Raises:
            CheckpointError: If one did.
        """
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def wait(self) -> None:
        """Waits until the save in progress is complete on disk.

        Raises:
            CheckpointError: If it failed.
        """
        if self._saving is not None:
            self._saving.join()
            self._saving = None
        self.poll()

    def problems(self, step: int, *, deep: bool = False) -> list[str]:
        """What is wrong with a checkpoint's files; empty where nothing is.

        Args:
            step: Of the checkpoint.
            deep: Whether to read every byte and compare checksums.
        """
        return find_problems(self._shelf, step, deep=deep)

    def verify(self, step: int, *, deep: bool = False) -> Manifest:
        """Refuses a checkpoint whose files are not as they were written.

        Args:
            step: Of the checkpoint.
            deep: Whether to read every byte and compare checksums. Processes share the work.

        Returns:
            The manifest: files, and shape and dtype of each array.

        Raises:
            CheckpointError: Naming the step, the file, what is wrong, and the newest good step.
        """
        if not self._shelf.has(step):
            there_are = f"there are {self.steps()}" if self.steps() else "there is none yet"
            raise CheckpointError(f"No checkpoint of step {step} in {self.directory}: {there_are}.")
        if problems := find_problems(self._shelf, step, deep=deep, share=True):
            raise CheckpointError(self._damaged(step, problems))
        return self._shelf.manifest(step)

    def restore(
        self, step: int, abstract_state: Any, *, partial: bool = False, deep: bool = True
    ) -> tuple[Any, dict[str, Any]]:
        """Reads a checkpoint onto any mesh; each process reads the shards that it needs.

        Args:
            step: Of the checkpoint.
            abstract_state: Pytree of `jax.ShapeDtypeStruct` (or arrays) with the shardings to
                restore onto; a leaf without one is put on the default device.
            partial: Whether arrays of the checkpoint that `abstract_state` lacks are left out
                (`{"params": ...}` reads the parameters alone); otherwise they are refused.
            deep: Whether checksums are compared before anything is read, not sizes alone.

        Returns:
            The state, bit for bit as it was saved, and `meta`.

        Raises:
            CheckpointError: If the checkpoint is damaged or there is none.
            ValueError: If its arrays are not those of `abstract_state`.
        """
        self.wait()
        manifest = self.verify(step, deep=deep)
        wanted = named_arrays(abstract_state)
        storage.check_arrays(step, manifest.arrays, manifests.array_table(wanted), partial=partial)
        restored = self._shelf.restore(step, wanted, partial=partial)
        leaves = [restored[name] for name in wanted]
        return jax.tree.unflatten(jax.tree.structure(abstract_state), leaves), self.meta(step)

    def meta(self, step: int) -> dict[str, Any]:
        """What was saved beside the arrays.

        Raises:
            CheckpointError: If it cannot be read.
        """
        try:
            return json.loads(self._shelf.meta(step))
        except (OSError, ValueError) as error:
            problem = f"meta.json cannot be read ({error})"
            raise CheckpointError(self._damaged(step, [problem])) from error

    def close(self) -> None:
        """Waits for the save in progress and lets go of all threads.

        Raises:
            CheckpointError: If the save failed.
        """
        try:
            self.wait()
        finally:
            self._shelf.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _folder(self, step: int) -> Path | Url:
        return self.directory / str(step)

    def _commit(self, step: int, meta_text: str, arrays: dict[str, str]) -> None:
        """Makes a checkpoint of what is written."""
        if jax.process_index() == 0:
            self._before_commit()
        self._shelf.finish(step, meta_text, arrays)

    def _retire(self) -> None:
        if jax.process_index() != 0:
            return
        steps = self.steps()
        for step in sorted(set(steps) - kept_steps(steps, self._config)):
            self._shelf.delete(step)

    def _failed(self, step: int, needed: int, error: Exception) -> CheckpointError:
        self._shelf.give_up(step)
        return CheckpointError(self._not_saved(step, needed, storage.system_reason(error)))

    def _not_saved(self, step: int, needed: int, reason: str) -> str:
        last = self._last_good()
        free = self._shelf.free_bytes()
        room = "" if free is None else f"; {human_bytes(free)} ({free:,} bytes) are free"
        return (
            f"Checkpoint {self._folder(step)} was not saved: {reason}. It needs "
            f"{human_bytes(needed)} ({needed:,} bytes){room}. {last}."
        )

    def _last_good(self) -> str:
        try:
            last = self.latest_good_step()
        except StorageError:  # of which the reason tells already
            return "The earlier ones are as they were"
        return (
            f"Step {last} is the last good one" if last is not None else "There is no earlier one"
        )

    def _damaged(self, step: int, problems: list[str]) -> str:
        shown = "; ".join(problems[:3]) + ("; ..." if len(problems) > 3 else "")
        good = self.latest_good_step(deep=True, before=step)
        way_on = (
            f"Step {good} is the newest good one: move {self._folder(step)} away to use it"
            if good is not None
            else "There is no earlier good one"
        )
        return f"Checkpoint step={step} in {self.directory} is damaged: {shown}. {way_on}."
