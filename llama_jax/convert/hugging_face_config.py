"""`config.json` of a Hugging Face model: what it says is understood in full, or refused by name."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from llama_jax.config import LinearRope, Llama3Rope, ModelConfig, PlainRope, Rope
from llama_jax.convert import json_values
from llama_jax.convert.json_values import read_json

ExportDtype = Literal["float32", "bfloat16", "float16"]
# Sizes: the ModelConfig field, and transformers' default (None: it must be there).
_SIZES = {
    "num_hidden_layers": ("num_layers", 32),
    "hidden_size": ("embed_dim", 4096),
    "intermediate_size": ("mlp_dim", 11008),
    "num_attention_heads": ("num_heads", 32),
    "vocab_size": ("vocab_size", 32000),
    "max_position_embeddings": ("max_seq_len", 2048),
}
# Attributes that change the model: the one value that it can have here.
_FIXED = {
    "model_type": ("llama",),
    "architectures": (["LlamaForCausalLM"], None),
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "attention_dropout": (0, None),
    "hidden_act": ("silu",),
    "sliding_window": (None,),
    "quantization_config": (None,),
    "is_encoder_decoder": (False,),
    "add_cross_attention": (False,),
    "partial_rotary_factor": (1,),
}
_FIXES = {
    "attention_bias": "LLaMA has no biases; this decoder cannot hold them",
    "mlp_bias": "LLaMA has no biases; this decoder cannot hold them",
    "sliding_window": "attention here sees the whole document; the logits would differ",
    "quantization_config": "dequantize the model first, and save it in bfloat16",
    "model_type": "only the LLaMA architecture is converted",
    "architectures": "only a LLaMA decoder with its output layer is converted",
}
# Attributes that change neither weights nor logits.
_IGNORED = {
    "_attn_implementation_autoset", "_commit_hash", "_name_or_path", "bos_token_id",
    "chunk_size_feed_forward", "decoder_start_token_id", "dtype", "eos_token_id",
    "finetuning_task", "id2label", "initializer_range", "label2id", "max_sequence_length",
    "num_labels", "output_attentions", "output_hidden_states", "pad_token_id", "prefix",
    "pretraining_tp", "problem_type", "return_dict", "return_dict_in_generate", "sep_token_id",
    "task_specific_params", "tokenizer_class", "torch_dtype", "torchscript",
    "transformers_version", "unk_token_id", "use_cache",
}  # fmt: skip
_HANDLED = {
    "num_key_value_heads", "head_dim", "rms_norm_eps", "tie_word_embeddings", "rope_theta",
    "rope_scaling", "rope_parameters",
}  # fmt: skip
_ROPE_KEYS = {
    "default": {"rope_theta", "rope_type", "type"},
    "linear": {"rope_theta", "rope_type", "type", "factor"},
    "llama3": {
        "rope_theta", "rope_type", "type", "factor", "low_freq_factor", "high_freq_factor",
        "original_max_position_embeddings",
    },
}  # fmt: skip


def read_model_config(folder: Path) -> tuple[ModelConfig, dict[str, Any]]:
    """The model that a folder's `config.json` describes, and the file as it is.

    Raises:
        ValueError: If an attribute is unknown, or has a value that this decoder cannot have.
    """
    path = folder / "config.json"
    if not path.exists() and (folder / "params.json").is_file():
        raise ValueError(f"{folder} is in Meta's layout; use `llama-jax convert from-meta`.")
    given = read_json(path)
    if "model_type" not in given and (folder / "checkpoints").is_dir():
        raise ValueError(f"{folder} is a run's folder; use `llama-jax convert to-hf`.")
    for name, allowed in _FIXED.items():
        if name in given and given[name] not in allowed:
            why = _FIXES.get(name, "this decoder cannot compute it")
            raise ValueError(f"{path}: {name}={given[name]!r} must be {allowed[0]!r}: {why}.")
    if "model_type" not in given:
        raise ValueError(f"{path}: model_type is missing; it must be 'llama'.")
    if unknown := sorted(given.keys() - _SIZES.keys() - _FIXED.keys() - _IGNORED - _HANDLED):
        raise ValueError(
            f"{path}: {unknown[0]}={given[unknown[0]]!r} is an attribute that is not handled here; "
            "if it changes neither weights nor logits, remove it from a copy of the file."
        )
    sizes = {
        ours: json_values.size(path, given, name, default)
        for name, (ours, default) in _SIZES.items()
    }
    if sizes["embed_dim"] % sizes["num_heads"] and given.get("head_dim") is None:
        raise ValueError(
            f"{path}: hidden_size={sizes['embed_dim']} is no multiple of "
            f"num_attention_heads={sizes['num_heads']}, and head_dim is not given."
        )
    model = ModelConfig(
        **sizes,
        num_kv_heads=json_values.size(path, given, "num_key_value_heads", sizes["num_heads"]),
        head_dim=json_values.size(
            path, given, "head_dim", sizes["embed_dim"] // sizes["num_heads"]
        ),
        rope=_rope(path, given),
        norm_eps=json_values.number(path, given, "rms_norm_eps", 1e-6),
        tie_embeddings=json_values.flag(path, given, "tie_word_embeddings"),
    )
    return model, given


def _rope(path: Path, given: dict[str, Any]) -> Rope:
    """RoPE of either generation: `rope_parameters`, or `rope_theta` with `rope_scaling`."""
    newer, older = given.get("rope_parameters"), given.get("rope_scaling")
    for name, value in (("rope_parameters", newer), ("rope_scaling", older)):
        if value is not None and not isinstance(value, dict):
            raise ValueError(f"{path}: {name}={value!r} must be an object or null.")
    theta = json_values.number(path, given, "rope_theta", 10_000.0)
    found = [
        _rope_of(path, {"rope_theta": theta} | value, name)
        for name, value in (("rope_parameters", newer), ("rope_scaling", older))
        if value is not None
    ] or [PlainRope(theta=theta)]
    # A file for both generations says it twice.
    if any(rope != found[0] for rope in found) or (
        "rope_theta" in given and found[0].theta != theta
    ):
        raise ValueError(
            f"{path}: rope_parameters={newer!r} and rope_theta={theta!r} with "
            f"rope_scaling={older!r} contradict each other; keep the one that is meant."
        )
    return found[0]


def _rope_of(path: Path, rope: dict[str, Any], name: str) -> Rope:
    kind = rope.get("rope_type", rope.get("type", "default"))
    if not isinstance(kind, str) or kind not in _ROPE_KEYS:
        raise ValueError(
            f"{path}: {name} has the type {kind!r}; there are {', '.join(_ROPE_KEYS)} here. "
            "Positions would be rotated otherwise, so the model is not converted."
        )
    for key in sorted(rope.keys() - _ROPE_KEYS[kind]):
        raise ValueError(
            f"{path}: {name}.{key}={rope[key]!r} is not handled for RoPE of the type {kind!r}."
        )

    def number(key: str) -> float:
        return json_values.number(path, rope, key, None, name)

    if kind == "default":
        return PlainRope(theta=number("rope_theta"))
    if kind == "linear":
        return LinearRope(theta=number("rope_theta"), factor=number("factor"))
    return Llama3Rope(
        theta=number("rope_theta"),
        factor=number("factor"),
        low_freq_factor=number("low_freq_factor"),
        high_freq_factor=number("high_freq_factor"),
        original_seq_len=json_values.size(path, rope, "original_max_position_embeddings"),
    )


def model_config(
    model: ModelConfig, dtype: ExportDtype, words: Mapping[str, Any] = MappingProxyType({})
) -> dict[str, Any]:
    """The `config.json` of a model, as transformers 4 and 5 both read it.

    Version 5 keeps all of RoPE in `rope_parameters`; version 4 reads `rope_theta` and
    `rope_scaling`, and calls `dtype` `torch_dtype` before 4.56. Each ignores the other's.

    Args:
        model: Its shape.
        dtype: Of the weights, or of most of them.
        words: What is said of special tokens.
    """
    scaling = _rope_scaling(model.rope)
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": False,
        "attention_dropout": 0.0,
        **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id")),
        "dtype": dtype,
        "torch_dtype": dtype,
        "head_dim": model.head_dim,
        "hidden_act": "silu",
        "hidden_size": model.embed_dim,
        "intermediate_size": model.mlp_dim,
        "max_position_embeddings": model.max_seq_len,
        "mlp_bias": False,
        "num_attention_heads": model.num_heads,
        "num_hidden_layers": model.num_layers,
        "num_key_value_heads": model.num_kv_heads,
        "rms_norm_eps": model.norm_eps,
        "rope_parameters": {
            "rope_theta": model.rope.theta,
            **(scaling or {"rope_type": "default"}),
        },
        "rope_scaling": scaling,
        "rope_theta": model.rope.theta,
        "tie_word_embeddings": model.tie_embeddings,
        "use_cache": True,
        "vocab_size": model.vocab_size,
    } | dict(words)


def _rope_scaling(rope: Rope) -> dict[str, Any] | None:
    match rope:
        case LinearRope():
            return {"rope_type": "linear", "factor": rope.factor}
        case Llama3Rope():
            return {
                "rope_type": "llama3",
                "factor": rope.factor,
                "low_freq_factor": rope.low_freq_factor,
                "high_freq_factor": rope.high_freq_factor,
                "original_max_position_embeddings": rope.original_seq_len,
            }
        case _:
            return None
