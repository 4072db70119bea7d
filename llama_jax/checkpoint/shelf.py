"""Where checkpoints are kept: a folder that all processes share, or a place in a bucket."""

from pathlib import Path
from typing import Any, Protocol

from llama_jax.checkpoint.manifest import Manifest
from llama_jax.remote.objects import Url, is_remote, located


class Shelf(Protocol):
    """Checkpoints by step, of which only complete ones count."""

    @property
    def directory(self) -> Path | Url:
        """Folder or place of the checkpoints."""
        ...

    def prepare(self) -> None:
        """Makes the place, and clears what a kill left there."""
        ...

    def saved(self) -> list[int]:
        """Steps that have a name here, ascending; one may lack its manifest."""
        ...

    def complete(self) -> list[int]:
        """Steps that have a manifest, ascending."""
        ...

    def has(self, step: int) -> bool:
        """Whether a step is among the saved ones."""
        ...

    def free_bytes(self) -> int | None:
        """Room that is left; None where there is always room."""
        ...

    def begin(self, step: int, arrays: dict[str, Any]) -> None:
        """Begins to write arrays; returns when they are in host memory."""
        ...

    def write(self, step: int) -> None:
        """Returns when the arrays are written."""
        ...

    def finish(self, step: int, meta: str, table: dict[str, str]) -> None:
        """Makes a checkpoint of the written arrays.

        Raises:
            CheckpointError: If another process could not do its part.
        """
        ...

    def give_up(self, step: int) -> None:
        """Clears what `begin` wrote."""
        ...

    def delete(self, step: int) -> None:
        """Deletes a checkpoint, which first ceases to be one."""
        ...

    def set_aside(self, step: int, why: str) -> None:
        """Gives a checkpoint a name that ends with `why`."""
        ...

    def manifest(self, step: int) -> Manifest:
        """Of a checkpoint.

        Raises:
            CheckpointError: If it cannot be read.
        """
        ...

    def meta(self, step: int) -> str:
        """Text that was saved beside the arrays."""
        ...

    def damage(
        self, step: int, manifest: Manifest, *, deep: bool, part: int, parts: int
    ) -> list[str]:
        """What is wrong with the files of a checkpoint; see `manifest.find_damage`."""
        ...

    def restore(self, step: int, wanted: dict[str, Any], *, partial: bool) -> dict[str, Any]:
        """Arrays of a checkpoint, each on its sharding."""
        ...

    def close(self) -> None:
        """Lets go of all threads."""
        ...


def open_shelf(directory: Path | Url) -> Shelf:
    """The shelf at a path or URL; a file there says in its one line where the checkpoints are."""
    place = located(directory)
    if isinstance(place, Path) and place.is_file():
        place = located(place.read_text(encoding="utf-8").strip())
    if is_remote(place):
        from llama_jax.checkpoint.bucket import Bucket

        return Bucket(Url(place))
    from llama_jax.checkpoint.local_folder import LocalFolder

    return LocalFolder(Path(place))
