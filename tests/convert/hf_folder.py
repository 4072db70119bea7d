"""Folders as transformers' `save_pretrained` writes them, written by hand."""

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from llama_jax.config import LinearRope, Llama3Rope, ModelConfig, PlainRope
from llama_jax.convert.hugging_face_config import model_config
from llama_jax.convert.mapping import tensors_of

TINY = ModelConfig(
    num_layers=3,
    embed_dim=48,
    mlp_dim=40,
    num_heads=6,
    num_kv_heads=2,
    head_dim=10,
    vocab_size=70,
    max_seq_len=32,
)


def shrunk(num_kv_heads: int = 4, **changes: Any) -> ModelConfig:
    """A family's form at reduced width and depth."""
    sizes = {"num_layers": 2, "embed_dim": 32, "mlp_dim": 88, "num_heads": 4, "head_dim": 8}
    fields = sizes | {"vocab_size": 96, "max_seq_len": 64, "num_kv_heads": num_kv_heads}
    return ModelConfig(**fields | changes)


FAMILIES = {
    "LLaMA-1 7B to 33B": shrunk(norm_eps=1e-6, num_layers=3),
    "LLaMA-1 65B": shrunk(norm_eps=1e-5),
    "LLaMA-2 7B and 13B": shrunk(max_seq_len=128),
    "LLaMA-2 34B and 70B": shrunk(num_kv_heads=2, mlp_dim=112),
    "LLaMA-3": shrunk(num_kv_heads=1, rope=PlainRope(theta=5e5)),
    "LLaMA-3.1": shrunk(num_kv_heads=2, rope=Llama3Rope(original_seq_len=16)),
    "LLaMA-3.2": shrunk(
        num_kv_heads=2, rope=Llama3Rope(factor=32.0, original_seq_len=16), tie_embeddings=True
    ),
    "odd heads": TINY,
    "linear RoPE": shrunk(rope=LinearRope(factor=4.0)),
}
DTYPES = {
    "float32": np.dtype(np.float32),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float16": np.dtype(np.float16),
}


def write_hf(
    folder: Path, model: ModelConfig, dtype: str = "float32", *, num_files: int = 1
) -> dict[str, np.ndarray]:
    """Writes config.json and random weights; returns the weights by name."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(model_config(model, "float32")))
    rng = np.random.default_rng(0)
    tensors = {
        tensor.name: rng.standard_normal(tensor.shape, np.float32).astype(DTYPES[dtype])
        for tensor in tensors_of(model)
    }
    save(folder, tensors, num_files=num_files)
    return tensors


def save(folder: Path, tensors: dict[str, np.ndarray], *, num_files: int = 1) -> None:
    """Writes safetensors files, and an index where there are several."""
    names = sorted(tensors)
    parts = [names[i::num_files] for i in range(num_files)]
    files = [f"model-{i + 1:05d}-of-{num_files:05d}.safetensors" for i in range(num_files)]
    if num_files == 1:
        files = ["model.safetensors"]
    for file, part in zip(files, parts, strict=True):
        (folder / file).write_bytes(safetensors_bytes({name: tensors[name] for name in part}))
    if num_files > 1:
        index = {name: file for file, part in zip(files, parts, strict=True) for name in part}
        text = json.dumps({"metadata": {}, "weight_map": index})
        (folder / "model.safetensors.index.json").write_text(text)


def safetensors_bytes(tensors: dict[str, np.ndarray]) -> bytes:
    """A file's content."""
    tags = {"float32": "F32", "bfloat16": "BF16", "float16": "F16", "float64": "F64"}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.nbytes
        entry = {"dtype": tags[tensor.dtype.name], "shape": list(tensor.shape)}
        header[name] = entry | {"data_offsets": [start, end]}
    return with_header(header) + b"".join(tensor.tobytes() for tensor in tensors.values())


def with_header(header: Any) -> bytes:
    """The first bytes of a file: the header's length and the header."""
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text
