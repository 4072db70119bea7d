"""Safetensors files written tensor by tensor, so that memory never holds a whole model twice.

Source: the format as https://huggingface.co/docs/safetensors describes it: eight bytes with the
header's length (little-endian), a JSON header of names, dtypes, shapes and byte ranges, then the
bytes of the tensors, row-major and little-endian.
"""

import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

# What tensors are called in the format, and their bytes an element.
DTYPES = {"float32": ("F32", 4), "bfloat16": ("BF16", 2)}
_HEADER_ALIGNMENT_BYTES = 8

Shapes = dict[str, tuple[int, ...]]


def plan_shards(shapes: Shapes, dtype: str, max_shard_bytes: int) -> dict[str, list[str]]:
    """Deals tensors, in order, to files of at most `max_shard_bytes` (or of one large tensor).

    Returns:
        Names of the tensors by name of the file: `model.safetensors` alone where all fit in it.
    """
    shards: list[list[str]] = [[]]
    filled = 0
    for name, shape in shapes.items():
        size = _size_bytes(shape, dtype)
        if shards[-1] and filled + size > max_shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    if len(shards) == 1:
        return {"model.safetensors": shards[0]}
    return {
        f"model-{number:05d}-of-{len(shards):05d}.safetensors": names
        for number, names in enumerate(shards, start=1)
    }


def write(
    folder: Path,
    shapes: Shapes,
    read: Callable[[str], np.ndarray],
    *,
    dtype: str,
    max_shard_bytes: int,
) -> Iterator[tuple[str, int]]:
    """Writes every tensor, and an index where there is more than one file.

    Args:
        folder: Where the files go.
        shapes: Of the tensors by name, in the order in which they are written.
        read: Gives a tensor; called once a tensor, and its result is dropped once written.
        dtype: "float32" or "bfloat16" (rounded to nearest even).
        max_shard_bytes: Of tensors in one file.

    Yields:
        The name of each tensor and its bytes, once written.
    """
    shards = plan_shards(shapes, dtype, max_shard_bytes)
    for file, names in shards.items():
        yield from _write_file(folder / file, {name: shapes[name] for name in names}, read, dtype)
    if len(shards) > 1:
        index = {
            "metadata": {
                "total_parameters": sum(math.prod(shape) for shape in shapes.values()),
                "total_size": sum(_size_bytes(shape, dtype) for shape in shapes.values()),
            },
            "weight_map": {name: file for file, names in shards.items() for name in names},
        }
        text = json.dumps(index, indent=2) + "\n"
        (folder / "model.safetensors.index.json").write_text(text)


def _write_file(
    path: Path, shapes: Shapes, read: Callable[[str], np.ndarray], dtype: str
) -> Iterator[tuple[str, int]]:
    import ml_dtypes

    tag, _ = DTYPES[dtype]
    wanted = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else np.float32)
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape in shapes.items():
        end = offset + _size_bytes(shape, dtype)
        header[name] = {"dtype": tag, "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _HEADER_ALIGNMENT_BYTES)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for name, shape in shapes.items():
            tensor = read(name)
            # A wrong shape would shift every tensor behind it.
            assert tensor.shape == shape, f"{name}: {tensor.shape} is not {shape}"
            data = tensor.astype(wanted, copy=False).reshape(-1)  # row-major, whatever it was
            file.write(data.view(np.uint8).data)
            yield name, data.nbytes
        file.flush()
        os.fsync(file.fileno())


def _size_bytes(shape: tuple[int, ...], dtype: str) -> int:
    return math.prod(shape) * DTYPES[dtype][1]
