"""Checkpoints in a folder that all processes share.

A save is written to `<step>.saving` and renamed when its manifest is complete; a checkpoint that is
no longer kept is renamed to `<step>.deleting` before it is deleted. Whatever is killed therefore
leaves whole checkpoints and folders of those two names, which are cleared at the start. A
checkpoint that was set aside, and any other file or folder, is never touched.
"""

import itertools
import re
import shutil
from pathlib import Path
from typing import Any

import jax

from llama_jax.atomic import flush, write_atomically
from llama_jax.checkpoint import manifest as manifests
from llama_jax.checkpoint import storage
from llama_jax.checkpoint.manifest import CheckpointError, Manifest

_STEP = re.compile(r"0|[1-9]\d*")
_LEFTOVER = re.compile(r"\d+\.(saving|deleting)")


class LocalFolder:
    """A `Shelf` on a file system; arrays are stored by Orbax."""

    def __init__(self, directory: Path):
        self.directory = directory
        self._orbax: Any = None

    def prepare(self) -> None:
        """Makes the folder, and clears what a kill left there."""
        self.directory.mkdir(parents=True, exist_ok=True)
        for path in self.directory.iterdir():
            if path.is_dir() and _LEFTOVER.fullmatch(path.name):
                shutil.rmtree(path)

    def saved(self) -> list[int]:
        """Steps that have a folder, ascending.

        One without a manifest is a damaged checkpoint: a save gets its name at the end.
        """
        if not self.directory.is_dir():
            return []
        names = (path.name for path in self.directory.iterdir())
        return sorted(int(name) for name in names if _STEP.fullmatch(name))

    def complete(self) -> list[int]:
        """Steps that have a manifest, ascending."""
        return [step for step in self.saved() if (self._folder(step) / manifests.NAME).is_file()]

    def has(self, step: int) -> bool:
        """Whether a step has a folder."""
        return self._folder(step).exists()

    def free_bytes(self) -> int:
        """Room on the disk."""
        there = next(path for path in (self.directory, *self.directory.parents) if path.exists())
        return shutil.disk_usage(there).free

    def begin(self, step: int, arrays: dict[str, Any]) -> None:
        """Begins to write arrays; returns when they are in host memory."""
        partial = self._partial(step)
        if jax.process_index() == 0:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
        self._open_orbax().save(partial / "state", args=storage.save_args(arrays))

    def write(self, step: int) -> None:
        """Waits until the arrays are written."""
        self._orbax.wait_until_finished()

    def finish(self, step: int, meta: str, table: dict[str, str]) -> None:
        """Turns the written folder into a checkpoint: manifest, then rename."""
        partial = self._partial(step)
        if jax.process_index() == 0:
            write_atomically(partial / "meta.json", meta)
        files = manifests.scan_together(
            partial, part=jax.process_index(), parts=jax.process_count()
        )
        if files is None:  # the first process collects and commits; the others see it done
            manifests.wait_until_gone(partial)
            if not self._folder(step).is_dir():
                raise CheckpointError("the first process could not complete it")
            return
        manifest = Manifest(step=step, arrays=table, files=files)
        # As the first process sees them: another may have hashed what is not there for all.
        if problems := manifests.find_damage(partial, manifest, deep=False):
            raise CheckpointError(problems[0])
        manifests.write(partial, manifest)
        for folder in [path for path in partial.rglob("*") if path.is_dir()]:
            flush(folder)
        partial.rename(self._folder(step))
        flush(self.directory)

    def give_up(self, step: int) -> None:
        """Clears what `begin` wrote."""
        shutil.rmtree(self._partial(step), ignore_errors=True)

    def delete(self, step: int) -> None:
        """Deletes a checkpoint, which first ceases to be one."""
        doomed = self.directory / f"{step}.deleting"
        self._folder(step).rename(doomed)
        shutil.rmtree(doomed)

    def set_aside(self, step: int, why: str) -> None:
        """Renames a checkpoint, so that its step can be saved anew and nothing is lost."""
        suffixes = itertools.chain([""], (f".{n}" for n in itertools.count(2)))
        names = (self.directory / f"{step}.{why}{suffix}" for suffix in suffixes)
        self._folder(step).rename(next(path for path in names if not path.exists()))
        flush(self.directory)

    def manifest(self, step: int) -> Manifest:
        """Of a checkpoint."""
        return manifests.read(self._folder(step))

    def meta(self, step: int) -> str:
        """Text that was saved beside the arrays."""
        return (self._folder(step) / "meta.json").read_text(encoding="utf-8")

    def damage(
        self, step: int, manifest: Manifest, *, deep: bool, part: int, parts: int
    ) -> list[str]:
        """What is wrong with the files of a checkpoint; see `manifest.find_damage`."""
        folder = self._folder(step)
        return manifests.find_damage(folder, manifest, deep=deep, part=part, parts=parts)

    def restore(self, step: int, wanted: dict[str, Any], *, partial: bool) -> dict[str, Any]:
        """Arrays of a checkpoint, each on its sharding."""
        state = self._folder(step) / "state"
        return self._open_orbax().restore(state, args=storage.restore_args(wanted, partial))

    def close(self) -> None:
        """Lets go of all threads."""
        if self._orbax is not None:
            self._orbax.close()
            self._orbax = None

    def _folder(self, step: int) -> Path:
        return self.directory / str(step)

    def _partial(self, step: int) -> Path:
        return self.directory / f"{step}.saving"

    def _open_orbax(self) -> Any:
        if self._orbax is None:
            self._orbax = storage.open_orbax()
        return self._orbax
