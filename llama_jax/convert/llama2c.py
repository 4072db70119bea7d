"""Import of llama2.c's first binary layout: seven int32, then float32 tensors, layers stacked.

Source: karpathy/llama2.c, export.py, `legacy_export`: dim, hidden, layers, heads, key/value heads,
vocabulary (negative where the output has a table of its own) and context. Its rotary planes are
adjacent channels, as in Meta's files.
"""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from llama_jax.config import ModelConfig, PlainRope
from llama_jax.convert import mapping, meta
from llama_jax.convert.hugging_face_import import Import
from llama_jax.convert.stored import Stored, array_pieces, pieces

_HEADER = 7
# In the file's order; layers are stacked where the name is one of a layer.
_ORDER = (
    "model.embed_tokens.weight",
    "input_layernorm.weight",
    "self_attn.q_proj.weight",
    "self_attn.k_proj.weight",
    "self_attn.v_proj.weight",
    "self_attn.o_proj.weight",
    "post_attention_layernorm.weight",
    "mlp.gate_proj.weight",
    "mlp.down_proj.weight",
    "mlp.up_proj.weight",
    "model.norm.weight",
)


def plan_llama2c_import(path: Path) -> Import:
    """Reads the file's header; its sizes must account for every byte.

    Raises:
        ValueError: If they do not.
    """
    model, header = _read_header(path)
    tensors = {tensor.name: tensor for tensor in mapping.tensors_of(model)}
    stored = _places(path, model, tensors)

    def read(where: Stored) -> Iterator[memoryview]:
        turned = meta.place_of(tensors[where.name], model).heads
        if not turned:
            yield from pieces(where)
            return
        flat = np.frombuffer(b"".join(map(bytes, pieces(where))), np.float32)
        value = meta.halves_of(flat.reshape(where.shape), turned)
        yield from array_pieces(value, "float32", where.name)

    return Import(
        name=path.stem,
        folder=path,
        beside=None,
        model=model,
        config={"header": header},
        vocab_size=model.vocab_size,
        tensors=tuple((tensors[where.name], where) for where in stored),
        left_out=("freq_cis",),
        files=(path,),
        read=read,
    )


def _read_header(path: Path) -> tuple[ModelConfig, list[int]]:
    if not path.is_file():
        raise ValueError(f"FILE={str(path)!r}: there is no such file.")
    header = np.fromfile(path, "<i4", _HEADER).tolist()
    is_model = len(header) == _HEADER and min(*header[:5], header[6]) > 0
    if not is_model or header[0] % header[3] or header[3] % header[4]:
        raise ValueError(f"{path} is no model in llama2.c's first layout: its header is {header}.")
    dim, hidden, layers, heads, kv_heads, vocab, context = header
    model = ModelConfig(
        num_layers=layers,
        embed_dim=dim,
        mlp_dim=hidden,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=dim // heads,
        vocab_size=abs(vocab),
        max_seq_len=context,
        rope=PlainRope(theta=10_000.0),
        norm_eps=1e-5,
        tie_embeddings=vocab > 0,
    )
    return model, header


def _places(path: Path, model: ModelConfig, tensors: dict[str, mapping.Tensor]) -> list[Stored]:
    """Where each tensor lies, in the file's order."""
    stored, end = [], 4 * _HEADER

    def take(name: str) -> None:
        nonlocal end
        shape = tensors[name].shape
        stored.append(Stored(name, "float32", shape, path, end, 4 * math.prod(shape)))
        end += stored[-1].num_bytes

    for name in _ORDER:
        in_layers = [f"model.layers.{layer}.{name}" for layer in range(model.num_layers)]
        for full in [name] if name.startswith("model.") else in_layers:
            take(full)
    end += 4 * model.max_seq_len * model.head_dim  # cosines and sines
    if not model.tie_embeddings:
        take("lm_head.weight")
    if end != (size := path.stat().st_size):
        raise ValueError(
            f"{path} has {size:,} bytes; its header says {end:,}. The file is cut, or in "
            "another of llama2.c's layouts: write it with version 0."
        )
    return stored
