"""Safetensors files written tensor by tensor, so that memory never holds a whole model twice.

Source: the format as https://huggingface.co/docs/safetensors describes it: eight bytes with the
header's length (little-endian), a JSON header of names, dtypes, shapes and byte ranges, then the
bytes of the tensors, row-major and little-endian.
"""

import contextlib
import json
import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from llama_jax.convert.digested_file import DigestedFile
from llama_jax.convert.result_folder import Unfinished
from llama_jax.convert.stored import ITEM_BYTES

TAGS = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}  # as the format calls them
_THREADS = 3  # one of which waits for the disk
_HEADER_ALIGNMENT_BYTES = 8

Shapes = dict[str, tuple[int, ...]]


def plan_shards(
    shapes: Shapes, dtypes: Mapping[str, str], max_shard_bytes: int
) -> dict[str, list[str]]:
    """Deals tensors, in order, to files of at most `max_shard_bytes` (or of one large tensor).

    Returns:
        Names of the tensors by name of the file: `model.safetensors` alone where all fit in it.
    """
    shards: list[list[str]] = [[]]
    filled = 0
    for name, shape in shapes.items():
        size = size_bytes(shape, dtypes[name])
        if shards[-1] and filled + size > max_shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    for shard in shards:
        # Of several dtypes the widest come first, so that all begin at multiples of their size.
        shard.sort(key=lambda name: -ITEM_BYTES[dtypes[name]])
    if len(shards) == 1:
        return {"model.safetensors": shards[0]}
    return {
        f"model-{number:05d}-of-{len(shards):05d}.safetensors": names
        for number, names in enumerate(shards, start=1)
    }


def write(
    unfinished: Unfinished,
    shapes: Shapes,
    read: Callable[[str], Iterator[memoryview]],
    *,
    dtypes: Mapping[str, str],
    max_shard_bytes: int,
    on_tensor: Callable[[str, int], None] = lambda name, num_bytes: None,
) -> tuple[dict[str, dict[str, Any]], dict[str, int]]:
    """Writes every tensor, and an index where there is more than one file.

    Tensors that an earlier start wrote are read, and kept where their checksums are those that it
    recorded.

    Args:
        unfinished: Where the files go.
        shapes: Of the tensors by name, in the order in which they are written.
        read: Gives the bytes of a tensor, row-major, in pieces; called once a tensor, when its
            turn comes.
        dtypes: Of the tensors by name.
        max_shard_bytes: Of tensors in one file.
        on_tensor: Called with the name and bytes of each tensor written.

    Returns:
        Bytes and SHA-256 of each file of tensors, and CRC-32 of each tensor's bytes.
    """
    shards = plan_shards(shapes, dtypes, max_shard_bytes)
    checksums: dict[str, int] = {}

    def write_file(file: str) -> dict[str, Any]:
        wanted = {name: shapes[name] for name in shards[file]}
        return _write_file(unfinished, file, wanted, read, dtypes, checksums, on_tensor)

    with ThreadPoolExecutor(_THREADS) as pool:
        try:
            files = dict(zip(shards, pool.map(write_file, shards), strict=True))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    if len(shards) > 1:
        index = {
            "metadata": {
                "total_parameters": sum(math.prod(shape) for shape in shapes.values()),
                "total_size": sum(
                    size_bytes(shape, dtypes[name]) for name, shape in shapes.items()
                ),
            },
            "weight_map": {name: file for file, names in shards.items() for name in names},
        }
        text = json.dumps(index, indent=2) + "\n"
        (unfinished.folder / "model.safetensors.index.json").write_text(text)
    return files, checksums


def _write_file(
    unfinished: Unfinished,
    name: str,
    shapes: Shapes,
    read: Callable[[str], Iterator[memoryview]],
    dtypes: Mapping[str, str],
    checksums: dict[str, int],
    on_tensor: Callable[[str, int], None],
) -> dict[str, Any]:
    sizes = {tensor: size_bytes(shape, dtypes[tensor]) for tensor, shape in shapes.items()}
    head = _header(shapes, sizes, dtypes)
    with contextlib.closing(DigestedFile(unfinished.folder / name)) as file:
        if not file.keep(head, 0, 0):
            file.append(head)
        for tensor, size in sizes.items():
            crc = unfinished.known(tensor)
            if crc is None or not file.keep(b"", size, crc):
                crc, begin = 0, file.num_bytes
                for piece in read(tensor):
                    file.append(piece)
                    crc = zlib.crc32(piece, crc)
                # A wrong size would shift every tensor behind it.
                written = file.num_bytes - begin
                assert written == size, f"{tensor}: {written} bytes of {shapes[tensor]}"
                unfinished.record(tensor, crc)
            checksums[tensor] = crc
            on_tensor(tensor, size)
        sha256 = file.finish()
    return {"bytes": len(head) + sum(sizes.values()), "sha256": sha256}


def _header(shapes: Shapes, sizes: dict[str, int], dtypes: Mapping[str, str]) -> bytes:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape in shapes.items():
        end = offset + sizes[name]
        entry = {"dtype": TAGS[dtypes[name]], "shape": list(shape)}
        header[name] = entry | {"data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _HEADER_ALIGNMENT_BYTES)
    return len(text).to_bytes(8, "little") + text


def size_bytes(shape: tuple[int, ...], dtype: str) -> int:
    """Of a tensor."""
    return math.prod(shape) * ITEM_BYTES[dtype]
