"""Import of Meta's `consolidated.NN.pth`; nothing pickled in them is executed."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from llama_jax.convert import mapping, meta
from llama_jax.convert.forecast import THREADS
from llama_jax.convert.hugging_face_import import Import, check_dtypes
from llama_jax.convert.meta_shards import Shards
from llama_jax.convert.stored import ITEM_BYTES, PIECE_BYTES, Stored


def plan_meta_import(
    folder: Path, *, max_seq_len: int | None = None, rope_factor: float | None = None
) -> Import:
    """Reads a folder's parameters and the shapes of its tensors.

    Args:
        folder: With params.json and consolidated.NN.pth.
        max_seq_len: Context, where params.json leaves it open.
        rope_factor: Of a stretched RoPE, where params.json leaves it open.

    Raises:
        ValueError: If anything in it is missing, unknown, of another shape, or damaged.
    """
    shards = Shards(folder)
    names = shards.names()
    if meta.EMBEDDING not in names:
        raise ValueError(f"{folder}: the tensor {meta.EMBEDDING} is missing.")
    # LLaMA-1 and 2 split the embedding by columns, LLaMA-3 by rows.
    dim = meta.read_json(folder / "params.json").get("dim")
    shapes = shards.shapes(meta.EMBEDDING)
    if any(len(shape) != 2 for shape in shapes):
        raise ValueError(f"{folder}: {meta.EMBEDDING} has the shapes {shapes}; it is no table.")
    by_rows = shapes[0][1] == dim
    rows = _whole(shapes, 0)[0] if by_rows else shapes[0][0]
    tied = meta.OUTPUT not in names or _is_tied(shards, by_rows)
    model, params = meta.read_params(
        folder, vocab_size=rows, tied=tied, max_seq_len=max_seq_len, rope_factor=rope_factor
    )
    places = {t.name: meta.place_of(t, model) for t in mapping.tensors_of(model)}
    axes = {place.name: place.axis for place in places.values()}
    axes[meta.EMBEDDING] = 0 if by_rows else 1
    left_out = names & ({meta.WAVELENGTHS} | ({meta.OUTPUT} if tied else set()))
    tensors = tuple(mapping.tensors_of(model))
    _check(folder, shards, names - left_out, {t.name: t.shape for t in tensors}, places, axes)

    def read(stored: Stored) -> Iterator[memoryview]:
        place = places[stored.name]
        multiple = model.head_dim if place.heads else 1
        for block in shards.blocks(place.name, axes[place.name], multiple):
            if place.heads:
                block = meta.halves_of(block, len(block) // model.head_dim)
            yield block.reshape(-1).view(np.uint8).data

    stored = []
    for tensor in tensors:
        dtype = shards.dtype(places[tensor.name].name)
        num_bytes = int(np.prod(tensor.shape)) * ITEM_BYTES[dtype]
        stored.append((tensor, Stored(tensor.name, dtype, tensor.shape, folder, 0, num_bytes)))
    check_dtypes(folder, [(t, s._replace(name=places[t.name].name)) for t, s in stored])
    layout = {"ranks": len(shards.paths), "embedding_axis": axes[meta.EMBEDDING], "params": params}
    return Import(
        name=folder.absolute().name,
        folder=folder,
        beside=folder,
        model=model,
        config=layout,
        vocab_size=rows,
        tensors=tuple(stored),
        left_out=tuple(sorted(left_out)),
        files=tuple(shards.paths),
        read=read,
    )


def bytes_at_once(plan: Import) -> int:
    """What an import holds: of each thread's tensor a block of rows a rank, and copies of them."""
    item = max(ITEM_BYTES[dtype] for dtype in plan.dtypes().values())
    block = max(PIECE_BYTES, plan.model.head_dim * plan.model.embed_dim * item)
    return THREADS * 3 * plan.config["ranks"] * block


def _is_tied(shards: Shards, by_rows: bool) -> bool:
    """Whether the output table is the embedding, a few rows at a time."""
    output, embedding = shards.shapes(meta.OUTPUT), shards.shapes(meta.EMBEDDING)
    axis = 0 if by_rows else 1
    if any(len(shape) != 2 or 0 in shape for shape in output + embedding) or (
        _whole(output, 0) != _whole(embedding, axis)
        or shards.dtype(meta.OUTPUT) != shards.dtype(meta.EMBEDDING)
    ):
        return False
    tables = ((meta.OUTPUT, 0), (meta.EMBEDDING, axis))
    # Tables that are not tied differ in the first rows, as a rule, and need not be read whole.
    first, second = (next(shards.blocks(*table)).copy() for table in tables)
    rows = min(len(first), len(second))
    if first[:rows].tobytes() != second[:rows].tobytes():
        return False
    first, second = (_sha256(shards.blocks(*table)) for table in tables)
    return first == second


def _sha256(blocks: Iterator[np.ndarray]) -> bytes:
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(block.reshape(-1).view(np.uint8).data)
    return digest.digest()


def _whole(shapes: list[tuple[int, ...]], axis: int) -> tuple[int, ...]:
    """Shape of a tensor that ranks have slices of along an axis."""
    first = list(shapes[0])
    first[axis] = sum(shape[axis] for shape in shapes)
    return tuple(first)


def _check(
    folder: Path,
    shards: Shards,
    names: set[str],
    shapes: dict[str, tuple[int, ...]],
    places: dict[str, meta.Place],
    axes: dict[str, int | None],
) -> None:
    wanted = {place.name: name for name, place in places.items()}
    if unknown := sorted(names - wanted.keys()):
        raise ValueError(
            f"{folder}: the tensor {unknown[0]} ({len(unknown)} in all) has no place in the LLaMA "
            "that params.json describes; the two do not belong together."
        )
    if missing := sorted(wanted.keys() - names):
        raise ValueError(
            f"{folder}: the tensor {missing[0]} is missing ({len(missing)} in all); copy or "
            "download the files again."
        )
    ranks = len(shards.paths)
    for theirs, ours in wanted.items():
        expected = list(shapes[ours])
        if (axis := axes[theirs]) is not None:
            if expected[axis] % ranks:
                raise ValueError(f"{folder}: {ranks} ranks cannot split {theirs} of {expected}.")
            expected[axis] //= ranks
        for path, shape in zip(shards.paths, shards.shapes(theirs), strict=True):
            if shape != tuple(expected):
                raise ValueError(
                    f"{path}: {theirs} has the shape {shape}; params.json and {ranks} ranks say "
                    f"{tuple(expected)}."
                )
