"""Export to Meta's `consolidated.NN.pth` and `params.json`."""

import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from llama_jax.atomic import flush
from llama_jax.convert import mapping, meta
from llama_jax.convert.certificate import digest, tensor_entry
from llama_jax.convert.meta_import import require_torch
from llama_jax.convert.result_folder import Unfinished
from llama_jax.convert.stored import numpy_dtype
from llama_jax.convert.weights import Weights

Entries = dict[str, dict[str, Any]]


def write_meta(
    unfinished: Unfinished,
    weights: Weights,
    *,
    ranks: int,
    embedding_axis: int = 0,
    params: dict[str, Any] | None = None,
    on_tensor: Callable[[int], None] = lambda num_bytes: None,
) -> tuple[Entries, Entries]:
    """Writes one file a rank; the tensors of a rank are on disk before they are packed.

    A rank's file that an earlier start wrote is kept where it still has the SHA-256 that was
    recorded.

    Args:
        unfinished: Where the files go.
        weights: All of one dtype.
        ranks: Model-parallel files.
        embedding_axis: Along which ranks split the embedding: 0 as LLaMA-3, 1 as LLaMA-1 and 2.
        params: A `params.json` to keep; None writes one.
        on_tensor: Called with the bytes of each slice written, and of each file kept.

    Returns:
        Bytes and SHA-256 of the ranks' files, and the certificate's entries of the tensors.

    Raises:
        ValueError: If Meta's layout cannot hold the model, or the ranks cannot split it.
    """
    require_torch()
    model = weights.model
    given = meta.params_of(model) if params is None else params
    for size in (model.num_heads, model.num_kv_heads, model.mlp_dim, model.vocab_size):
        if size % ranks:
            raise ValueError(
                f"--model-parallel={ranks} must divide heads, key/value heads, MLP and vocabulary "
                f"({model.num_heads}, {model.num_kv_heads}, {model.mlp_dim}, {model.vocab_size})."
            )
    files: Entries = {}
    tensors: Entries = {}
    for rank in range(ranks):
        name = f"consolidated.{rank:02d}.pth"
        if (entry := unfinished.known_file(name)) is None:
            told: Entries = {}
            slices = _slices(weights, told, rank, ranks, embedding_axis)
            _write_rank(unfinished.folder / name, slices, _dtype_of(weights), on_tensor)
            entry = digest(unfinished.folder / name) | {"tensors": told}
            unfinished.record(name, entry)
        else:
            on_tensor(entry["bytes"])
        tensors |= entry["tensors"]
        files[name] = {key: entry[key] for key in ("bytes", "sha256")}
    (unfinished.folder / "params.json").write_text(json.dumps(given, indent=1) + "\n")
    return files, tensors


def _write_rank(
    path: Path,
    slices: Iterator[tuple[str, np.ndarray]],
    dtype: str,
    on_tensor: Callable[[int], None],
) -> None:
    torch = require_torch()
    raw = path.with_suffix(".raw")
    places: dict[str, tuple[int, tuple[int, ...]]] = {}
    with raw.open("wb") as file:
        for name, value in slices:
            places[name] = (file.tell(), value.shape)
            file.write(np.ascontiguousarray(value).view(np.uint8).data)
            on_tensor(value.nbytes)
        size = file.tell()
    # Mapped, so that the kernel takes pages back as they are written.
    bits = torch.int32 if dtype == "float32" else torch.int16
    item = bits.itemsize
    flat = torch.from_file(str(raw), shared=False, size=size // item, dtype=bits)
    state = {}
    for name, (offset, shape) in places.items():
        count = int(np.prod(shape))
        part = flat[offset // item : offset // item + count]
        # A storage of its own: a view would carry the whole file.
        storage = part.untyped_storage()[offset : offset + count * item]
        tensor = torch.empty(0, dtype=getattr(torch, dtype)).set_(storage)
        state[name] = tensor.view(shape)
    torch.save(state, path)
    del state, flat
    raw.unlink()
    flush(path)


def _slices(
    weights: Weights, told: Entries, rank: int, ranks: int, embedding_axis: int
) -> Iterator[tuple[str, np.ndarray]]:
    """A rank's slices under Meta's names; entries of the whole tensors go to `told`."""
    model, dtype = weights.model, _dtype_of(weights)
    for tensor in mapping.tensors_of(model):
        data = b"".join(bytes(piece) for piece in weights.read(tensor.name))
        told[tensor.name] = tensor_entry(dtype, tensor.shape, zlib.crc32(data))
        value = np.frombuffer(data, numpy_dtype(dtype)).reshape(tensor.shape)
        place = meta.place_of(tensor, model)
        if place.heads:
            value = meta.adjacent_of(value, place.heads)
        is_embedding = place.name == meta.EMBEDDING
        yield place.name, _slice(value, embedding_axis if is_embedding else place.axis, rank, ranks)
        if is_embedding and model.tie_embeddings:
            yield meta.OUTPUT, _slice(value, 0, rank, ranks)


def _slice(value: np.ndarray, axis: int | None, rank: int, ranks: int) -> np.ndarray:
    return value if axis is None else np.split(value, ranks, axis=axis)[rank]


def _dtype_of(weights: Weights) -> str:
    return next(iter(weights.dtypes.values()))
