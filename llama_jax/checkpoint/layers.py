"""A checkpoint written layer by layer, as one file each, without JAX and without Orbax.

Arrays are zarr (version 3) with one chunk a layer, uncompressed but for zeros, in the order of
axes that the writer has them in: the codec "transpose" tells readers. `Checkpointer.restore` reads
them as it reads any other checkpoint.

Source: https://zarr-specs.readthedocs.io/en/latest/v3/core/v3.0.html, and Orbax's `_METADATA`.
"""

import dataclasses
import functools
import json
import math
from pathlib import Path
from typing import Any

from llama_jax.atomic import flush, write_atomically
from llama_jax.checkpoint import manifest as manifests
from llama_jax.checkpoint.manifest import FileEntry, Manifest


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Layered:
    """One array of a checkpoint.

    Attributes:
        name: Dotted, as `params.blocks.mlp.gate`.
        shape: Of the whole array.
        dtype: "float32", "bfloat16", "float16" or "int32".
        order: Its axes in the order in which they are stored; a layer comes first.
        stacked: Whether axis 0 is of layers, each a file of its own.
        is_zero: Whether all values are zero; such an array is compressed to hardly anything.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    order: tuple[int, ...]
    stacked: bool
    is_zero: bool = False

    def file(self, layer: int) -> str:
        """Path of a layer's file (of the only one, if not stacked), relative to the checkpoint."""
        places = ["0"] * len(self.shape)
        if self.stacked:
            places[0] = str(layer)
        return f"state/{self.name}/{'.'.join(['c', *places])}"

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        """Shape of what one file holds."""
        return (1, *self.shape[1:]) if self.stacked else self.shape


def describe(checkpoint: Path, arrays: list[Layered]) -> None:
    """Writes what readers need to know of the arrays, and makes their folders."""
    for array in arrays:
        folder = checkpoint / "state" / array.name
        folder.mkdir(parents=True, exist_ok=True)
        for layer in range(array.shape[0] if array.stacked else 1):
            if array.is_zero:
                (checkpoint / array.file(layer)).write_bytes(
                    _compressed_zeros(4 * math.prod(array.chunk_shape))
                )
        (folder / "zarr.json").write_text(json.dumps(_zarr(array)) + "\n")
    tree = {
        f"('{array.name}',)": {
            "key_metadata": [{"key": array.name, "key_type": 2}],
            "value_metadata": {
                "value_type": "jax.Array",
                "skip_deserialize": False,
                "write_shape": list(array.shape),
            },
        }
        for array in arrays
    }
    metadata = {"tree_metadata": tree, "use_ocdbt": False, "use_zarr3": True}
    metadata |= {"store_array_data_equal_to_fill_value": True, "custom_metadata": None}
    (checkpoint / "state" / "_METADATA").write_text(json.dumps(metadata) + "\n")


def fresh_adamw(params: dict[str, Layered]) -> list[Layered]:
    """The rest of a training state that begins at these parameters: no update, moments of zero.

    The names are those of `llama_jax.train`: `opt_state.1.mu`, where 1 is Adam's place in the
    chain of update rules.
    """
    counts = [
        Layered(name=name, shape=(), dtype="int32", order=(), stacked=False, is_zero=True)
        for name in ("step", "opt_state.1.count")
    ]
    return counts + [
        Layered(
            name=f"opt_state.1.{moment}.{path}",
            shape=array.shape,
            dtype="float32",
            order=array.order,
            stacked=array.stacked,
            is_zero=True,
        )
        for moment in ("mu", "nu")
        for path, array in params.items()
    ]


def commit(
    partial: Path,
    final: Path,
    *,
    step: int,
    meta: dict[str, Any],
    arrays: list[Layered],
    files: dict[str, FileEntry],
) -> None:
    """Turns a written folder into a checkpoint: the rest flushed, manifest, then rename.

    Args:
        partial: Where the arrays' files are.
        final: Its name as a checkpoint, beside it.
        step: Updates done.
        meta: What is kept beside the arrays.
        arrays: All of them.
        files: Entries of the arrays' files, which a `result_folder` flushes before it has its name.
    """
    write_atomically(partial / "meta.json", json.dumps(meta, indent=1) + "\n")
    inner = [path for path in (partial / "state").rglob("*") if path.is_file()]
    known = {partial / name for name in files}
    rest = [*(path for path in inner if path not in known), partial / "meta.json"]
    table = {array.name: f"{array.dtype}[{','.join(map(str, array.shape))}]" for array in arrays}
    manifests.write(
        partial, Manifest(step=step, arrays=table, files=files | manifests.scan(partial, rest))
    )
    for folder in [path for path in partial.rglob("*") if path.is_dir()]:
        flush(folder)
    partial.rename(final)
    flush(final.parent)


@functools.cache
def _compressed_zeros(num_bytes: int) -> bytes:
    import zstandard

    compressor = zstandard.ZstdCompressor().compressobj(size=num_bytes)
    piece = bytes(1 << 20)
    parts = [compressor.compress(piece[: num_bytes - at]) for at in range(0, num_bytes, 1 << 20)]
    return b"".join([*parts, compressor.flush()])


def _zarr(array: Layered) -> dict[str, Any]:
    zstd = {"name": "zstd", "configuration": {"level": 3, "checksum": False}}
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(array.shape),
        "data_type": array.dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [*array.chunk_shape]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "codecs": [
            {"name": "transpose", "configuration": {"order": list(array.order)}},
            {"name": "bytes", "configuration": {"endian": "little"}},
            *([zstd] if array.is_zero else []),
        ],
        "fill_value": 0,
    }
