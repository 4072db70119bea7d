"""Export to Meta's `consolidated.NN.pth` and `params.json`."""

import contextlib
import json
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from llama_jax.convert import mapping, meta
from llama_jax.convert.certificate import tensor_entry
from llama_jax.convert.meta_import import require_torch
from llama_jax.convert.result_folder import Unfinished
from llama_jax.convert.stored import numpy_dtype
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
    """Writes one file a rank, all of them at once: each tensor is read once, and cut.

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
    torch = require_torch()
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
        archives = [TorchArchive(unfinished.folder / name, parts, torch) for name in names]
        for archive in archives:
            stack.callback(archive.close)
        known = {name: unfinished.known(name) for name in cuts}
        rest = _read_ahead(weights, [name for name in cuts if known[name] is None])
        for count, tensor in enumerate(mapping.tensors_of(model), start=1):
            axes = [axis for _, axis in cuts[tensor.name]]
            if (crcs := known[tensor.name]) is None:
                value, crc = next(rest)
                crcs = _write(archives, value, axes, crc)
                unfinished.record(tensor.name, crcs)
            else:
                _keep(archives, weights, tensor, axes, crcs)
            dtype = weights.dtypes[tensor.name]
            entries[tensor.name] = tensor_entry(dtype, tensor.shape, crcs[0])
            on_tensor(count)
        files = {name: archive.finish() for name, archive in zip(names, archives, strict=True)}
    (unfinished.folder / "params.json").write_text(json.dumps(given, indent=1) + "\n")
    return files, entries


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


def _read_ahead(weights: Weights, names: list[str]) -> Iterator[tuple[np.ndarray, int]]:
    """Tensors in Meta's layout with the CRC-32 of theirs, one read while another is written."""
    tensors = {tensor.name: tensor for tensor in mapping.tensors_of(weights.model)}
    with ThreadPoolExecutor(1) as pool:
        coming = None
        for name in [*names, None]:
            done, coming = coming, name and pool.submit(_read, weights, tensors[name])
            if done is not None:
                yield done.result()


def _read(weights: Weights, tensor: mapping.Tensor) -> tuple[np.ndarray, int]:
    dtype = numpy_dtype(weights.dtypes[tensor.name])
    value = weights.array(tensor.name, tensor.shape, dtype)
    crc = zlib.crc32(_bytes(value))
    if heads := meta.place_of(tensor, weights.model).heads:
        value = meta.adjacent_of(value, heads)
    return value, crc


def _write(
    archives: list[TorchArchive], value: np.ndarray, axes: list[int | None], crc: int
) -> list[int]:
    """Adds a tensor to all ranks; returns its checksum, and those of what was written."""
    crcs = [crc]
    for axis in axes:
        for rank, archive in enumerate(archives):
            crcs.append(archive.add(_bytes(_slice(value, axis, rank, len(archives)))))
    return crcs


def _keep(
    archives: list[TorchArchive],
    weights: Weights,
    tensor: mapping.Tensor,
    axes: list[int | None],
    crcs: list[int],
) -> None:
    """Keeps what an earlier start wrote of a tensor, and writes what is not as it was."""
    value, left = None, iter(crcs[1:])
    for axis in axes:
        for rank, archive in enumerate(archives):
            if not archive.keep(next(left)):
                value = _read(weights, tensor)[0] if value is None else value
                archive.add(_bytes(_slice(value, axis, rank, len(archives))))


def _slice(value: np.ndarray, axis: int | None, rank: int, ranks: int) -> np.ndarray:
    return value if axis is None else np.split(value, ranks, axis=axis)[rank]


def _bytes(value: np.ndarray) -> memoryview:
    return np.ascontiguousarray(value).reshape(-1).view(np.uint8).data
