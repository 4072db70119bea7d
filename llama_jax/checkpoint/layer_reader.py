"""Arrays of a checkpoint, read layer by layer, whatever wrote it and without an accelerator."""

import json
import math
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from llama_jax.checkpoint.manifest import Manifest
from llama_jax.checkpoint.shelf import open_shelf
from llama_jax.remote.objects import Url

# As many as threads read layers of one array at a time.
_PIECES_KEPT = 3


class LayerFile(NamedTuple):
    """A file that holds one layer, uncompressed, and what it should hold.

    Attributes:
        path: The file.
        order: Axes of the whole array in the order in which the bytes lie.
        crc32: Of the file, as the checkpoint's manifest says.
    """

    path: Path
    order: tuple[int, ...]
    crc32: int


class SavedArray:
    """One array of a checkpoint: `array[layer]` reads a layer, `np.asarray(array)` all of it.

    Attributes:
        shape: Of the whole array.
        dtype: Name, as "float32" or "bfloat16".
    """

    def __init__(self, checkpoint: Path | Url, manifest: Manifest, name: str):
        said = re.fullmatch(r"(\w+)\[([\d,]*)\]", manifest.arrays[name])
        assert said, f"{name}: a manifest describes arrays as float32[2,3]"
        self.dtype = said[1]
        self.shape = tuple(int(size) for size in said[2].split(",") if size)
        self._checkpoint, self._manifest, self._name = checkpoint, manifest, name
        self._store: Any = None
        # Pieces of several layers by their first, and which of those were not asked for yet.
        self._pieces: dict[int, tuple[np.ndarray, set[int]]] = {}
        self._lock = threading.Lock()

    @property
    def spans_layers(self) -> bool:
        """Whether one piece on the disk holds several layers, so that none is read alone."""
        return bool(self.shape) and self._layers_in_piece > 1

    @property
    def bytes_at_once(self) -> int:
        """What reading layers brings to memory: one, or pieces that span several of them."""
        count = 1
        if self.spans_layers:
            pieces = -(-self.shape[0] // self._layers_in_piece)
            count = self._layers_in_piece * min(pieces, _PIECES_KEPT)
        return count * math.prod(self.shape[1:]) * self._open().dtype.numpy_dtype.itemsize

    def __getitem__(self, layer: int) -> np.ndarray:
        if not self.spans_layers:
            return self._open()[layer].read().result()
        # A piece is kept until all of its layers were asked for: to read it for each would take as
        # many times. Threads that are at different layers hold a piece each.
        first = layer - layer % self._layers_in_piece
        last = min(first + self._layers_in_piece, self.shape[0])
        with self._lock:
            known = self._pieces.pop(first, None)
            if known is None:
                while len(self._pieces) >= _PIECES_KEPT:
                    del self._pieces[next(iter(self._pieces))]
                known = self._open()[first:last].read().result(), set(range(first, last))
            piece, left = known
            left.discard(layer)
            if left:
                self._pieces[first] = known
        return piece[layer - first]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self._open().read().result(), dtype=dtype)

    def layer_file(self, layer: int) -> LayerFile | None:
        """The file that holds a layer alone as it is; None where layers are stored otherwise.

        Args:
            layer: Its number; -1 means all of an array that has no layers.
        """
        if not isinstance(self._checkpoint, Path):
            return None
        folder = self._checkpoint / "state" / self._name
        if not (folder / "zarr.json").is_file():
            return None
        metadata = json.loads((folder / "zarr.json").read_text())
        transpose, *rest = metadata["codecs"]
        chunk = tuple(metadata["chunk_grid"]["configuration"]["chunk_shape"])
        single = chunk == (self.shape if layer < 0 else (1, *self.shape[1:]))
        if not single or transpose["name"] != "transpose" or [c["name"] for c in rest] != ["bytes"]:
            return None
        places = [str(max(layer, 0)), *["0"] * (len(self.shape) - 1)]
        name = f"state/{self._name}/{'.'.join(['c', *places])}"
        order = tuple(transpose["configuration"]["order"])
        return LayerFile(self._checkpoint / name, order, self._manifest.files[name].crc32)

    @property
    def _layers_in_piece(self) -> int:
        return int(self._open().chunk_layout.read_chunk.shape[0])

    def _open(self) -> Any:
        if self._store is None:
            self._store = _open_array(self._checkpoint, self._manifest, self._name)
        return self._store


def _open_array(checkpoint: Path | Url, manifest: Manifest, name: str) -> Any:
    if not isinstance(checkpoint, Path):
        from llama_jax.checkpoint.bucket import open_array

        return open_array(checkpoint, manifest, name)
    import tensorstore

    state = checkpoint / "state"
    ocdbt = (state / "manifest.ocdbt").is_file()
    base = {"driver": "file", "path": f"{state}/{'' if ocdbt else name + '/'}"}
    kvstore = {"driver": "ocdbt", "base": base, "path": f"{name}/"} if ocdbt else base
    return tensorstore.open({"driver": "zarr3", "kvstore": kvstore}, open=True, read=True).result()


def saved_arrays(
    checkpoint: Path | Url, prefix: str = "params."
) -> Iterator[tuple[str, SavedArray]]:
    """The arrays of a checkpoint whose names begin with `prefix`, by the rest of the name.

    Args:
        checkpoint: Its folder, or its place in a bucket.
        prefix: Of the names.

    Raises:
        CheckpointError: If the manifest cannot be read.
    """
    manifest = open_shelf(checkpoint.parent).manifest(int(checkpoint.name))
    for name in manifest.arrays:
        if name.startswith(prefix):
            yield name.removeprefix(prefix), SavedArray(checkpoint, manifest, name)
