"""Checkpoints in a bucket: one object a piece of an array, and the manifest last.

Objects have no rename, but each is whole or absent: a checkpoint is what has a manifest, and what
has none was not finished, or was being deleted, and is cleared at the start. Each process writes
the pieces of its own shards, with the checksums of what is in memory, and reads those it needs.

The layout is that of a checkpoint on a disk that `layers.py` writes (zarr, version 3, not
compressed): a copy of the objects is a checkpoint there, and the other way round.

Source: https://zarr-specs.readthedocs.io/en/latest/v3/core/v3.0.html, and Orbax's `_METADATA`.
"""

import itertools
import json
import math
import time
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from llama_jax.checkpoint import manifest as manifests
from llama_jax.checkpoint.manifest import CheckpointError, FileEntry, Manifest
from llama_jax.remote.objects import Objects, StorageError, Url

_CHUNK_BYTES = 64 << 20
_POLL_SECONDS = 0.5
_META = "meta.json"


class _Part(NamedTuple):
    """A shard of an array, in host memory."""

    name: str
    start: tuple[int, ...]
    chunk: tuple[int, ...]
    values: np.ndarray


class Bucket:
    """A `Shelf` in a bucket; arrays are stored by TensorStore."""

    def __init__(self, url: Url):
        self.directory = url
        self._objects = Objects(url)
        self._parts: list[_Part] = []
        self._described: dict[str, bytes] = {}
        self._files: dict[str, FileEntry] = {}

    def prepare(self) -> None:
        """Clears what a kill left there."""
        names = self._objects.names()
        complete = _complete(names)
        steps = {name.partition("/")[0] for name in names}
        left = {step for step in steps if step.isdecimal() and int(step) not in complete}
        self._objects.delete(name for name in names if name.partition("/")[0] in left)

    def saved(self) -> list[int]:
        """Steps that have a manifest: what has none was not finished."""
        return self.complete()

    def complete(self) -> list[int]:
        """Steps that have a manifest, ascending."""
        return sorted(_complete(self._objects.names()))

    def has(self, step: int) -> bool:
        """Whether a step has a manifest; not by listing all objects, for training waits for it."""
        return self._at(step).read(manifests.NAME) is not None

    def free_bytes(self) -> None:
        """There is always room in a bucket."""

    def begin(self, step: int, arrays: dict[str, Any]) -> None:
        """Copies this process's shards to host memory; nothing is written yet."""
        mine = {
            name: [shard for shard in array.addressable_shards if shard.replica_id == 0]
            for name, array in arrays.items()
        }
        for shard in itertools.chain.from_iterable(mine.values()):
            shard.data.copy_to_host_async()
        self._described, self._parts = {"state/_METADATA": _orbax_metadata(arrays)}, []
        for name, array in arrays.items():
            chunk = _chunk_shape(array.sharding.shard_shape(array.shape), array.dtype.itemsize)
            self._described[f"state/{name}/zarr.json"] = _zarr(array.shape, array.dtype, chunk)
            for shard in mine[name]:
                values = np.asarray(shard.data)
                if shard.device.platform == "cpu":  # not a copy: the next step would write into it
                    values = values.copy()
                start = tuple(span.start or 0 for span in shard.index)
                self._parts.append(_Part(name, start, chunk, values))

    def write(self, step: int) -> None:
        """Writes what `begin` copied."""
        self._files = {}
        parts, self._parts = self._parts, []
        self._at(step).write_all(self._pieces(parts))

    def finish(self, step: int, meta: str, table: dict[str, str]) -> None:
        """Makes a checkpoint of what is written: the manifest, when all processes are done."""
        objects, process = self._at(step), jax.process_index()
        if process:
            objects.write(f"share_{process}.json", manifests.entries_to_json(self._files).encode())
            self._wait_for(objects, manifests.NAME)
            return
        rest = {_META: meta.encode(), **self._described}
        objects.write_all(rest.items())
        for name, content in rest.items():
            self._files[name] = FileEntry(size=len(content), crc32=zlib.crc32(content))
        shares = [f"share_{other}.json" for other in range(1, jax.process_count())]
        for share in shares:
            self._files |= manifests.entries_from_json(self._wait_for(objects, share).decode())
        if missing := sorted(set(self._files) - set(objects.names())):
            raise CheckpointError(f"{missing[0]} was written and is not there")
        manifest = Manifest(step=step, arrays=table, files=self._files)
        objects.write(manifests.NAME, manifests.to_json(manifest).encode())
        objects.delete(shares)

    def give_up(self, step: int) -> None:
        """Lets go of what `begin` copied; what was written is cleared at the next start."""
        self._parts = []

    def delete(self, step: int) -> None:
        """Deletes a checkpoint, which first ceases to be one."""
        objects = self._at(step)
        objects.delete([manifests.NAME])
        objects.delete(objects.names())

    def set_aside(self, step: int, why: str) -> None:
        """Copies a checkpoint to another name and deletes it, for nothing is renamed here."""
        taken = {name.partition("/")[0] for name in self._objects.names()}
        suffixes = itertools.chain([""], (f".{n}" for n in itertools.count(2)))
        name = next(name for end in suffixes if (name := f"{step}.{why}{end}") not in taken)
        source, target = self._at(step), Objects(self.directory / name)
        names = source.names()
        contents = zip(names, source.read_all(names), strict=True)
        target.write_all((name, content) for name, content in contents if content is not None)
        self.delete(step)

    def manifest(self, step: int) -> Manifest:
        """Of a checkpoint."""
        content = self._at(step).read(manifests.NAME)
        if content is None:
            raise CheckpointError(f"{manifests.NAME} is missing")
        return manifests.from_json(content.decode(errors="replace"))

    def meta(self, step: int) -> str:
        """Text that was saved beside the arrays."""
        if (content := self._at(step).read(_META)) is None:
            raise StorageError("there is no such object")
        return content.decode()

    def damage(
        self, step: int, manifest: Manifest, *, deep: bool, part: int, parts: int
    ) -> list[str]:
        """What is wrong with the objects of a checkpoint; empty where nothing is.

        Sizes are compared where the content is, for an object is never there in part.
        """
        objects = self._at(step)
        there = set(objects.names())
        problems = [f"{name} is missing" for name in manifest.files if name not in there]
        mine = sorted(there & set(manifest.files))[part::parts] if deep else []
        for name, content in zip(mine, objects.read_all(mine), strict=True):
            wanted, found = manifest.files[name], content or b""
            if len(found) != wanted.size:
                problems.append(f"{name} has {len(found):,} bytes, not {wanted.size:,}")
            elif (crc := zlib.crc32(found)) != wanted.crc32:
                was = f"{crc:08x}, not {wanted.crc32:08x}"
                problems.append(f"{name} has CRC-32 {was}: its content changed")
        return problems

    def restore(self, step: int, wanted: dict[str, Any], *, partial: bool) -> dict[str, Any]:
        """Arrays of a checkpoint, each on its sharding; a process reads what it needs."""
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        manifest = self.manifest(step)
        return {
            name: _read_onto(open_array(self.directory / str(step), manifest, name), leaf, here)
            for name, leaf in wanted.items()
        }

    def close(self) -> None:
        """Lets go of what was copied."""
        self._parts = []

    def _at(self, step: int) -> Objects:
        return Objects(self.directory / str(step))

    def _pieces(self, parts: list[_Part]) -> Iterator[tuple[str, bytes]]:
        for part in parts:
            counts = [
                size // each for size, each in zip(part.values.shape, part.chunk, strict=True)
            ]
            for place in itertools.product(*map(range, counts)):
                pairs = list(zip(place, part.chunk, strict=True))
                piece = part.values[tuple(slice(n * each, (n + 1) * each) for n, each in pairs)]
                first = (s // each for s, each in zip(part.start, part.chunk, strict=True))
                numbers = (str(f + n) for f, n in zip(first, place, strict=True))
                name, content = f"state/{part.name}/{'.'.join(['c', *numbers])}", piece.tobytes()
                self._files[name] = FileEntry(size=len(content), crc32=zlib.crc32(content))
                yield name, content

    def _wait_for(self, objects: Objects, name: str) -> bytes:
        deadline = time.monotonic() + manifests.PATIENCE_SECONDS
        while (content := objects.read(name)) is None:
            if time.monotonic() > deadline:
                raise CheckpointError(
                    f"{name} of another process was not there within "
                    f"{manifests.PATIENCE_SECONDS:.0f} s"
                )
            time.sleep(_POLL_SECONDS)
        return content


def open_array(checkpoint: Url, manifest: Manifest, name: str) -> Any:
    """TensorStore's view of an array of a checkpoint in a bucket, whatever wrote it there."""
    import tensorstore

    if "state/manifest.ocdbt" in manifest.files:
        base = Objects(checkpoint / "state").spec
        kvstore = {"driver": "ocdbt", "base": base, "path": f"{name}/"}
    else:
        kvstore = Objects(checkpoint / "state" / name).spec
    spec = {"driver": "zarr3", "kvstore": kvstore}
    return tensorstore.open(spec, open=True, read=True).result()


def _read_onto(store: Any, leaf: Any, default: jax.sharding.Sharding) -> jax.Array:
    sharding = getattr(leaf, "sharding", None) or default
    indices = sharding.addressable_devices_indices_map(leaf.shape)
    # Replicas of a shard are read once.
    reads = {str(index): store[index].read() for index in indices.values()}
    host = {index: np.asarray(read.result()).astype(leaf.dtype) for index, read in reads.items()}
    arrays = [jax.device_put(host[str(index)], device) for device, index in indices.items()]
    return jax.make_array_from_single_device_arrays(leaf.shape, sharding, arrays)


def _complete(names: list[str]) -> set[int]:
    places = (name.split("/") for name in names if name.endswith(f"/{manifests.NAME}"))
    return {int(place[0]) for place in places if len(place) == 2 and place[0].isdecimal()}


def _chunk_shape(shard: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Largest pieces below a bound that divide a shard evenly, cut along the first axes."""
    chunk = list(shard)
    for axis, size in enumerate(shard):
        excess = math.ceil(math.prod(chunk) * itemsize / _CHUNK_BYTES)
        if excess <= 1:
            break
        parts = next(n for n in range(min(excess, size), size + 1) if size % n == 0)
        chunk[axis] = size // parts
    return tuple(chunk)


def _zarr(shape: tuple[int, ...], dtype: Any, chunk: tuple[int, ...]) -> bytes:
    metadata = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": str(dtype),
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunk)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "codecs": [
            {"name": "transpose", "configuration": {"order": list(range(len(shape)))}},
            {"name": "bytes", "configuration": {"endian": "little"}},
        ],
        "fill_value": False if str(dtype) == "bool" else 0,
    }
    return (json.dumps(metadata) + "\n").encode()


def _orbax_metadata(arrays: dict[str, Any]) -> bytes:
    tree = {
        f"('{name}',)": {
            "key_metadata": [{"key": name, "key_type": 2}],
            "value_metadata": {
                "value_type": "jax.Array",
                "skip_deserialize": False,
                "write_shape": list(array.shape),
            },
        }
        for name, array in arrays.items()
    }
    metadata = {"tree_metadata": tree, "use_ocdbt": False, "use_zarr3": True}
    metadata |= {"store_array_data_equal_to_fill_value": True, "custom_metadata": None}
    return (json.dumps(metadata) + "\n").encode()
