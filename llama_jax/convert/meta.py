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
from llama_jax.convert import json_values, mapping
from llama_jax.convert.json_values import read_json

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


def filled_in(params: dict[str, Any], like: ModelConfig) -> dict[str, Any]:
    """Arguments of `read_params` for what a `params.json` leaves open, as another model has it."""
    rope = like.rope.factor if isinstance(like.rope, Llama3Rope) else None
    stretched = params.get("use_scaled_rope") is True
    return {
        "max_seq_len": like.max_seq_len if params.get("max_seq_len") is None else None,
        "rope_factor": rope if stretched and params.get("rope_scaling_factor") is None else None,
    }


def read_params(
    folder: Path, *, vocab_size: int, tied: bool, max_seq_len: int | None, rope_factor: float | None
) -> tuple[ModelConfig, dict[str, Any]]:
    """The model that a folder's `params.json` describes, and the file as it is; see `model_of`."""
    path = folder / "params.json"
    given = read_json(path)
    model = model_of(
        path,
        given,
        vocab_size=vocab_size,
        tied=tied,
        max_seq_len=max_seq_len,
        rope_factor=rope_factor,
    )
    return model, given


def model_of(
    path: Path,
    given: dict[str, Any],
    *,
    vocab_size: int,
    tied: bool,
    max_seq_len: int | None,
    rope_factor: float | None,
) -> ModelConfig:
    """The model that parameters describe.

    Args:
        path: Of their file, for messages.
        given: What is in it.
        vocab_size: Rows of the tables in the weights; `params.json` may leave it open with -1.
        tied: Whether the output table is the embedding.
        max_seq_len: Context, where the file leaves it open.
        rope_factor: Of a stretched RoPE, where the file leaves it open.

    Raises:
        ValueError: If a parameter is unknown, missing, of another type, or contradicts the weights
            or an argument.
    """
    if unknown := sorted(given.keys() - _PARAMS):
        raise ValueError(
            f"{path}: {unknown[0]}={given[unknown[0]]!r} is a parameter that is not handled here; "
            "if it changes neither weights nor logits, remove it from a copy of the file."
        )
    for name in ("dim", "n_layers", "n_heads", "multiple_of"):
        json_values.size(path, given, name)
    if given["dim"] % given["n_heads"]:
        raise ValueError(
            f"{path}: dim={given['dim']} is no multiple of n_heads={given['n_heads']}; Meta's "
            "layout knows no such model."
        )
    if given.get("ffn_dim_multiplier") is not None:
        json_values.number(path, given, "ffn_dim_multiplier")
    if given.get("vocab_size", -1) not in (-1, vocab_size):
        raise ValueError(
            f"{path}: vocab_size={given['vocab_size']} contradicts the {vocab_size} rows of "
            f"{EMBEDDING}; one of the two is another model's."
        )
    theta = json_values.number(path, given, "rope_theta", 10_000.0)
    rope: PlainRope | Llama3Rope = PlainRope(theta=theta)
    if json_values.flag(path, given, "use_scaled_rope"):
        factor = _said(path, given, "rope_scaling_factor", rope_factor, "--rope-factor")
        rope = Llama3Rope(theta=theta, factor=factor)
    elif rope_factor is not None:
        raise ValueError(
            f"--rope-factor={rope_factor}: {path} does not stretch RoPE (use_scaled_rope); leave "
            "it out."
        )
    context = _said(path, given, "max_seq_len", max_seq_len, "--max-seq-len")
    return ModelConfig(
        num_layers=given["n_layers"],
        embed_dim=given["dim"],
        mlp_dim=mlp_dim_of(given),
        num_heads=given["n_heads"],
        num_kv_heads=json_values.size(path, given, "n_kv_heads", given["n_heads"]),
        head_dim=given["dim"] // given["n_heads"],
        vocab_size=vocab_size,
        max_seq_len=json_values.size(path, {"max_seq_len": context}, "max_seq_len"),
        rope=rope,
        norm_eps=json_values.number(path, given, "norm_eps", 1e-5),
        tie_embeddings=tied,
    )


def _said(path: Path, given: dict[str, Any], name: str, argument: Any, option: str) -> Any:
    """What the file says, or else the argument."""
    if given.get(name) is None:
        if argument is None:
            raise ValueError(
                f"{path}: {name} is left open; say it with {option}, as the model's release does "
                "(--help lists them): the weights do not tell."
            )
        return argument
    said = json_values.number(path, given, name)
    if argument not in (None, said):
        raise ValueError(
            f"{option}={argument} contradicts {name}={said:g} of {path}; leave it out."
        )
    return given[name]


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
        # Half more than the width, which Meta's rule cuts off, whatever the division rounds.
        "ffn_dim_multiplier": (model.mlp_dim + 0.5) / width,
        "norm_eps": model.norm_eps,
        "rope_theta": rope.theta,
        "max_seq_len": model.max_seq_len,
    }
    if isinstance(rope, Llama3Rope):
        params |= {"use_scaled_rope": True, "rope_scaling_factor": rope.factor}
    assert mlp_dim_of(params) == model.mlp_dim, "the rule gives the width back"
    return params
