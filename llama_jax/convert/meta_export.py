"""Export to Meta's `consolidated.NN.pth` and `params.json`."""

import contextlib
import json
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from llama_jax.convert import digested_file, mapping, meta
from llama_jax.convert.certificate import tensor_entry
from llama_jax.convert.result_folder import Unfinished
from llama_jax.convert.stored import ITEM_BYTES, PIECE_BYTES
from llama_jax.convert.torch_archive import Part, TorchArchive
from llama_jax.convert.weights import Weights

Entries = dict[str, dict[str, Any]]


def write_meta(
    unfinished: Unfinished,
    weights: Weights,
    *,
    ranks: int,
    embedding_axis: int = 0,
    params: dict[str, Any] | None = None,
    on_tensor: Callable[[int], None] = lambda count: None,
) -> tuple[Entries, Entries]:
    """Writes one file a rank, all of them at once: each tensor is cut as it is read.

    Tensors that an earlier start wrote are read, and kept where their checksums are those that it
    recorded.

    Args:
        unfinished: Where the files go.
        weights: To write.
        ranks: Model-parallel files.
        embedding_axis: Along which ranks split the embedding: 0 as LLaMA-3, 1 as LLaMA-1 and 2.
        params: A `params.json` to keep; None writes one.
        on_tensor: Called with the number of tensors written so far.

    Returns:
        Bytes and SHA-256 of the ranks' files, and the certificate's entries of the tensors.

    Raises:
        ValueError: If Meta's layout cannot hold the model, or the ranks cannot split it.
    """
    model = weights.model
    given = meta.params_of(model) if params is None else params
    for size in (model.num_heads, model.num_kv_heads, model.mlp_dim, model.vocab_size):
        if ranks < 1 or size % ranks:
            raise ValueError(
                f"--model-parallel={ranks} must divide heads, key/value heads, MLP and vocabulary "
                f"({model.num_heads}, {model.num_kv_heads}, {model.mlp_dim}, {model.vocab_size})."
            )
    cuts = {
        tensor.name: _cuts(tensor, weights, ranks, embedding_axis)
        for tensor in mapping.tensors_of(model)
    }
    parts = [part for of_tensor in cuts.values() for part, _ in of_tensor]
    names = [f"consolidated.{rank:02d}.pth" for rank in range(ranks)]
    entries: Entries = {}
    with contextlib.ExitStack() as stack:
        archives = [TorchArchive(unfinished.folder / name, parts) for name in names]
        for archive in archives:
            stack.callback(archive.close)
        for count, tensor in enumerate(mapping.tensors_of(model), start=1):
            axes = [axis for _, axis in cuts[tensor.name]]
            known = unfinished.known(tensor.name)
            crcs = _put(archives, weights, tensor, axes, known)
            if known is None:
                unfinished.record(tensor.name, crcs)
            dtype = weights.dtypes[tensor.name]
            entries[tensor.name] = tensor_entry(dtype, tensor.shape, crcs[0])
            on_tensor(count)
        files = {name: archive.finish() for name, archive in zip(names, archives, strict=True)}
    (unfinished.folder / "params.json").write_text(json.dumps(given, indent=1) + "\n")
    return files, entries


def bytes_at_once(weights: Weights, ranks: int) -> int:
    """What an export holds: buffers of the ranks' files, and a few blocks of rows."""
    item = max(ITEM_BYTES[dtype] for dtype in weights.dtypes.values())
    head = weights.model.head_dim * weights.model.embed_dim * item
    return ranks * digested_file.BYTES_AT_ONCE + 4 * max(PIECE_BYTES, head)


def _cuts(
    tensor: mapping.Tensor, weights: Weights, ranks: int, embedding_axis: int
) -> list[tuple[Part, int | None]]:
    """What a rank's file has of a tensor, and the axis along which it is cut for it."""
    place, dtype = meta.place_of(tensor, weights.model), weights.dtypes[tensor.name]
    found = {place.name: place.axis}
    if place.name == meta.EMBEDDING:
        found = {place.name: embedding_axis}
        if weights.model.tie_embeddings:
            found[meta.OUTPUT] = 0

    def shape(axis: int | None) -> tuple[int, ...]:
        sizes = list(tensor.shape)
        if axis is not None:
            sizes[axis] //= ranks
        return tuple(sizes)

    return [(Part(name, dtype, shape(axis)), axis) for name, axis in found.items()]


def _put(
    archives: list[TorchArchive],
    weights: Weights,
    tensor: mapping.Tensor,
    axes: list[int | None],
    known: list[int] | None,
) -> list[int]:
    """Adds a tensor to all ranks, but where an earlier start did.

    Returns:
        CRC-32 of the tensor, and of what each rank has of it.
    """
    whole, parts = (0, []) if known is None else (known[0], known[1:])
    crcs = []
    for number, axis in enumerate(axes):
        said = parts[number * len(archives) :] if parts else [None] * len(archives)
        missing = {
            rank: archive
            for rank, archive in enumerate(archives)
            if (crc := said[rank]) is None or not archive.keep(crc)
        }
        if missing:
            whole = _copy(missing, len(archives), weights, tensor, axis)
        crcs += [archive.last_crc32 for archive in archives]
    return [whole, *crcs]


def _copy(
    archives: dict[int, TorchArchive],
    ranks: int,
    weights: Weights,
    tensor: mapping.Tensor,
    axis: int | None,
) -> int:
    """Adds a tensor to some ranks, a few rows at a time; returns its CRC-32."""
    head_dim = weights.model.head_dim if meta.place_of(tensor, weights.model).heads else 0
    for archive in archives.values():
        archive.begin()
    crc, start, share = 0, 0, tensor.shape[0] // ranks
    for block in weights.blocks(tensor.name, tensor.shape, head_dim or 1):
        crc = zlib.crc32(_bytes(block), crc)
        if head_dim:
            block = meta.adjacent_of(block, len(block) // head_dim)
        for rank, archive in archives.items():
            if axis == 0:
                first = rank * share - start
                part = block[max(first, 0) : max(first + share, 0)]
            else:
                part = block if axis is None else np.split(block, ranks, axis=axis)[rank]
            archive.add(_bytes(part))
        start += len(block)
    for archive in archives.values():
        archive.end()
    return crc


def _bytes(value: np.ndarray) -> memoryview:
    return np.ascontiguousarray(value).reshape(-1).view(np.uint8).data
