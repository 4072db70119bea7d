"""Export to Meta's `consolidated.NN.pth` and `params.json`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from llama_jax.config import ModelConfig
from llama_jax.convert import mapping, meta
from llama_jax.convert.meta_import import require_torch


def write_meta(
    folder: Path,
    model: ModelConfig,
    dtype: str,
    read: Callable[[mapping.Tensor], np.ndarray],
    *,
    ranks: int,
    embedding_axis: int = 0,
    params: dict[str, Any] | None = None,
    on_tensor: Callable[[], None] = lambda: None,
) -> None:
    """Writes one file a rank; the tensors of a rank are on disk before they are packed.

    Args:
        folder: Where the files go.
        model: Its shape.
        dtype: Of the weights.
        read: Gives a tensor in the Hugging Face layout, in that dtype.
        ranks: Model-parallel files.
        embedding_axis: Along which ranks split the embedding: 0 as LLaMA-3, 1 as LLaMA-1 and 2.
        params: A `params.json` to keep; None writes one.
        on_tensor: Called after each tensor of each rank.

    Raises:
        ValueError: If Meta's layout cannot hold the model, or the ranks cannot split it.
    """
    torch = require_torch()
    given = meta.params_of(model) if params is None else params
    for size in (model.num_heads, model.num_kv_heads, model.mlp_dim, model.vocab_size):
        if size % ranks:
            raise ValueError(
                f"--model-parallel={ranks} must divide heads, key/value heads, MLP and vocabulary "
                f"({model.num_heads}, {model.num_kv_heads}, {model.mlp_dim}, {model.vocab_size})."
            )
    bits = torch.int32 if dtype == "float32" else torch.int16
    for rank in range(ranks):
        raw = folder / f".rank{rank}"
        places: dict[str, tuple[int, tuple[int, ...]]] = {}
        with raw.open("wb") as file:
            for name, value in _slices(model, read, rank, ranks, embedding_axis):
                places[name] = (file.tell(), value.shape)
                file.write(np.ascontiguousarray(value).view(np.uint8).data)
                on_tensor()
            size = file.tell()
        # Mapped, so that the kernel takes pages back as they are written.
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
        torch.save(state, folder / f"consolidated.{rank:02d}.pth")
        del state, flat
        raw.unlink()
    (folder / "params.json").write_text(json.dumps(given, indent=1) + "\n")


def _slices(
    model: ModelConfig,
    read: Callable[[mapping.Tensor], np.ndarray],
    rank: int,
    ranks: int,
    embedding_axis: int,
):
    for tensor in mapping.tensors_of(model):
        place = meta.place_of(tensor, model)
        value = read(tensor)
        if place.heads:
            value = meta.adjacent_of(value, place.heads)
        is_embedding = place.name == meta.EMBEDDING
        yield place.name, _slice(value, embedding_axis if is_embedding else place.axis, rank, ranks)
        if is_embedding and model.tie_embeddings:
            yield meta.OUTPUT, _slice(value, 0, rank, ranks)


def _slice(value: np.ndarray, axis: int | None, rank: int, ranks: int) -> np.ndarray:
    return value if axis is None else np.split(value, ranks, axis=axis)[rank]
