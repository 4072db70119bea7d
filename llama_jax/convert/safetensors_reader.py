"""Safetensors files of others: every claim of a header is checked before a tensor is read.

Source: the format as https://huggingface.co/docs/safetensors describes it; its own library reads
headers of up to 100 MB.
"""

import math
from pathlib import Path
from typing import Any

from llama_jax.convert.json_values import AGAIN, MAX_JSON_BYTES, parse, read_json
from llama_jax.convert.safetensors import TAGS
from llama_jax.convert.stored import ITEM_BYTES, Stored

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
_DTYPES = {tag: dtype for dtype, tag in TAGS.items()}


def read_folder(folder: Path) -> dict[str, Stored]:
    """The tensors of a model's folder by name: those of its index, or of its only file.

    Raises:
        ValueError: If there are none, a file is damaged, or index and files do not agree.
    """
    index = folder / INDEX
    if not index.is_file():
        if not (folder / SINGLE).is_file():
            raise ValueError(
                f"DIR={str(folder)!r} has neither {SINGLE} nor {INDEX}; name a folder that "
                "transformers' save_pretrained wrote (pickled .bin files are not read: save again "
                "with safe_serialization=True)."
            )
        return {tensor.name: tensor for tensor in read_header(folder / SINGLE)}
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ValueError(f"{index} has no weight_map; {AGAIN}.")
    files = sorted({str(file) for file in weight_map.values()})
    if (folder / SINGLE).is_file() and SINGLE not in files:
        raise ValueError(
            f"{folder} has {SINGLE}, and {INDEX}, which names other files; transformers would read "
            "the one, others the other: remove what is not meant."
        )
    tensors: dict[str, Stored] = {}
    for name in files:
        if Path(name).name != name:
            raise ValueError(f"{index} names {name!r}, which is outside of its folder.")
        for tensor in read_header(folder / name):
            if weight_map.get(tensor.name) != name:
                raise ValueError(
                    f"{folder / name} holds {tensor.name}, which the index places in "
                    f"{weight_map.get(tensor.name, 'no file')}; {AGAIN}."
                )
            tensors[tensor.name] = tensor
    if missing := sorted(weight_map.keys() - tensors.keys()):
        raise ValueError(f"{index} names {missing[0]}, which no file holds; {AGAIN}.")
    return tensors


def read_header(path: Path) -> list[Stored]:
    """The tensors of one file, in the order of their bytes.

    Raises:
        ValueError: If the header is not one, or its ranges do not cover the file exactly.
    """
    if not path.is_file():
        raise ValueError(f"{path} is missing; copy or download it again.")
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, MAX_JSON_BYTES):
            raise ValueError(
                f"{path}: a header of {length:,} bytes cannot be in a file of {size:,} (and may "
                f"have {MAX_JSON_BYTES:,}); {AGAIN}."
            )
        header = parse(file.read(length), path)
    header.pop("__metadata__", None)
    tensors = sorted(
        (_entry(name, value, path, 8 + length) for name, value in header.items()),
        key=lambda tensor: (tensor.offset, tensor.num_bytes),
    )
    end = 8 + length
    for tensor in tensors:
        if tensor.offset != end:
            raise ValueError(
                f"{path}: {tensor.name} begins at byte {tensor.offset:,}, not at {end:,} where the "
                f"tensor before it ends; {AGAIN}."
            )
        end += tensor.num_bytes
    if end != size:
        raise ValueError(f"{path} has {size:,} bytes; its header says {end:,}: {AGAIN}.")
    return tensors


def _entry(name: str, value: Any, path: Path, data_start: int) -> Stored:
    entry = value if isinstance(value, dict) else {}
    shape, offsets = _sizes(entry.get("shape")), _sizes(entry.get("data_offsets"))
    if shape is None or offsets is None or len(offsets) != 2:
        raise ValueError(f"{path}: the header's entry of {name} is damaged; {AGAIN}.")
    tag = entry.get("dtype")
    if tag not in _DTYPES:
        raise ValueError(
            f"{path}: {name} is {tag!r}; a model of {', '.join(_DTYPES)} can be converted. Save "
            "it again in one of them (dequantized, if it is quantized)."
        )
    start, end = offsets
    dtype = _DTYPES[tag]
    if end - start != math.prod(shape) * ITEM_BYTES[dtype]:
        raise ValueError(
            f"{path}: {name} has {end - start:,} bytes; {tag} of the shape {shape} needs "
            f"{math.prod(shape) * ITEM_BYTES[dtype]:,}: {AGAIN}."
        )
    return Stored(name, dtype, shape, path, data_start + start, end - start)


def _sizes(value: Any) -> tuple[int, ...] | None:
    if not isinstance(value, list) or len(value) > 8:
        return None
    if not all(type(number) is int and 0 <= number < 1 << 62 for number in value):
        return None
    return tuple(value)
