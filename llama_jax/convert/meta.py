"""Meta's layout: `consolidated.NN.pth`, one a model-parallel rank, and `params.json`.

Source: Meta's llama repository, llama/model.py (names, which axis each rank has a slice of, the
width of the MLP), and llama3's for tables split by rows. Its rotary planes are adjacent channels,
where Hugging Face's are halves of a head.
"""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np

from llama_jax.config import Llama3Rope, ModelConfig, PlainRope
from llama_jax.convert import mapping
from llama_jax.convert.safetensors_reader import read_json

# Tensor names of Hugging Face, theirs, and the axis of which each rank holds a slice.
_NAMES = {
    "model.embed_tokens.weight": ("tok_embeddings.weight", 0),
    "model.norm.weight": ("norm.weight", None),
    "lm_head.weight": ("output.weight", 0),
    "input_layernorm.weight": ("attention_norm.weight", None),
    "post_attention_layernorm.weight": ("ffn_norm.weight", None),
    "self_attn.q_proj.weight": ("attention.wq.weight", 0),
    "self_attn.k_proj.weight": ("attention.wk.weight", 0),
    "self_attn.v_proj.weight": ("attention.wv.weight", 0),
    "self_attn.o_proj.weight": ("attention.wo.weight", 1),
    "mlp.gate_proj.weight": ("feed_forward.w1.weight", 0),
    "mlp.down_proj.weight": ("feed_forward.w2.weight", 1),
    "mlp.up_proj.weight": ("feed_forward.w3.weight", 0),
}
_PARAMS = {
    "dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "multiple_of", "ffn_dim_multiplier",
    "norm_eps", "rope_theta", "use_scaled_rope", "rope_scaling_factor", "max_seq_len",
    "max_batch_size",
}  # fmt: skip
EMBEDDING = "tok_embeddings.weight"
OUTPUT = "output.weight"
WAVELENGTHS = "rope.freqs"
_META_FACTOR = 8.0  # of the stretched RoPE, where params.json does not say


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a tensor of the Hugging Face layout is in Meta's.

    Attributes:
        name: There.
        axis: Of which each rank holds a slice; None where all hold the whole.
        heads: Of the channels whose planes are adjacent there; 0 where nothing rotates.
    """

    name: str
    axis: int | None
    heads: int


def place_of(tensor: mapping.Tensor, model: ModelConfig) -> Place:
    """Where a tensor is in Meta's files."""
    rest = tensor.name.removeprefix(f"model.layers.{tensor.layer}.")
    name, axis = _NAMES[rest]
    heads = {"attention.wq.weight": model.num_heads, "attention.wk.weight": model.num_kv_heads}
    full = f"layers.{tensor.layer}.{name}" if tensor.layer >= 0 else name
    return Place(name=full, axis=axis, heads=heads.get(name, 0))


def halves_of(value: np.ndarray, heads: int) -> np.ndarray:
    """Rows whose rotary planes are adjacent, as halves of each head."""
    rows, columns = value.shape
    planes = value.reshape(heads, rows // heads // 2, 2, columns)
    return planes.transpose(0, 2, 1, 3).reshape(rows, columns)


def adjacent_of(value: np.ndarray, heads: int) -> np.ndarray:
    """The inverse of `halves_of`."""
    rows, columns = value.shape
    planes = value.reshape(heads, 2, rows // heads // 2, columns)
    return planes.transpose(0, 2, 1, 3).reshape(rows, columns)


def mlp_dim_of(params: dict[str, Any]) -> int:
    """Width of the MLP by Meta's rule."""
    width = int(2 * 4 * params["dim"] / 3)
    if (factor := params.get("ffn_dim_multiplier")) is not None:
        width = int(factor * width)
    return -(-width // params["multiple_of"]) * params["multiple_of"]


def read_params(
    folder: Path, *, vocab_size: int, tied: bool, max_seq_len: int | None, rope_factor: float | None
) -> tuple[ModelConfig, dict[str, Any]]:
    """The model that `params.json` describes, and the file as it is.

    Args:
        folder: Of the file.
        vocab_size: Rows of the tables in the weights; `params.json` may leave it open with -1.
        tied: Whether the output table is the embedding.
        max_seq_len: Context; None takes that of the release with such a RoPE.
        rope_factor: Of a stretched RoPE; None takes the file's, or 8.

    Raises:
        ValueError: If a parameter is unknown, missing, or contradicts the weights.
    """
    path = folder / "params.json"
    given = read_json(path)
    if unknown := sorted(given.keys() - _PARAMS):
        raise ValueError(
            f"{path}: {unknown[0]}={given[unknown[0]]!r} is a parameter that is not handled here; "
            "if it changes neither weights nor logits, remove it from a copy of the file."
        )
    for name in ("dim", "n_layers", "n_heads", "multiple_of"):
        if type(given.get(name)) is not int or given[name] <= 0:
            raise ValueError(f"{path}: {name}={given.get(name)!r} must be a positive whole number.")
    if given.get("vocab_size", -1) not in (-1, vocab_size):
        raise ValueError(
            f"{path}: vocab_size={given['vocab_size']} contradicts the {vocab_size} rows of "
            f"{EMBEDDING}; one of the two is another model's."
        )
    theta = float(given.get("rope_theta", 10_000.0))
    scaled = bool(given.get("use_scaled_rope", False))
    factor = rope_factor or float(given.get("rope_scaling_factor") or _META_FACTOR)
    context = 131_072 if scaled else 8192 if theta >= 500_000 else 2048
    model = ModelConfig(
        num_layers=given["n_layers"],
        embed_dim=given["dim"],
        mlp_dim=mlp_dim_of(given),
        num_heads=given["n_heads"],
        num_kv_heads=given.get("n_kv_heads") or given["n_heads"],
        head_dim=given["dim"] // given["n_heads"],
        vocab_size=vocab_size,
        max_seq_len=max_seq_len or given.get("max_seq_len") or context,
        rope=Llama3Rope(theta=theta, factor=factor) if scaled else PlainRope(theta=theta),
        norm_eps=float(given.get("norm_eps", 1e-5)),
        tie_embeddings=tied,
    )
    return model, given


def params_of(model: ModelConfig) -> dict[str, Any]:
    """The `params.json` of a model.

    Raises:
        ValueError: If Meta's code cannot hold such a model.
    """
    if model.head_dim * model.num_heads != model.embed_dim:
        raise ValueError(
            f"model.head_dim={model.head_dim} is not model.embed_dim={model.embed_dim} over "
            f"model.num_heads={model.num_heads}; Meta's layout knows no other: use to-hf."
        )
    rope = model.rope
    plain = isinstance(rope, PlainRope)
    if not plain and not (
        isinstance(rope, Llama3Rope)
        and (rope.low_freq_factor, rope.high_freq_factor) == (1.0, 4.0)
        and rope.original_seq_len == 8192
    ):
        raise ValueError(
            f"model.rope={rope} has no place in Meta's layout, which knows plain RoPE and "
            "LLaMA-3.1's stretch of a context of 8192: use to-hf."
        )
    multiple = math.gcd(model.mlp_dim, 4096)
    width = int(2 * 4 * model.embed_dim / 3)
    params: dict[str, Any] = {
        "dim": model.embed_dim,
        "n_layers": model.num_layers,
        "n_heads": model.num_heads,
        "n_kv_heads": model.num_kv_heads,
        "vocab_size": model.vocab_size,
        "multiple_of": multiple,
        # In the middle of what Meta's rule rounds up to the width.
        "ffn_dim_multiplier": (model.mlp_dim - multiple / 2 + 0.5) / width,
        "norm_eps": model.norm_eps,
        "rope_theta": rope.theta,
        "max_seq_len": model.max_seq_len,
    }
    if isinstance(rope, Llama3Rope):
        params |= {"use_scaled_rope": True, "rope_scaling_factor": rope.factor}
    assert mlp_dim_of(params) == model.mlp_dim, "the rule gives the width back"
    return params
