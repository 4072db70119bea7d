"""A LLaMA as its paper writes it, in NumPy: the judge of two programs in float32.

In float64 it says what the weights mean; in float32, the same lines say how far rounding alone
leads from there. It shares no line with the programs that it judges.

Sources: Touvron et al. 2023 (arXiv:2302.13971), section 2.2; Su et al. 2021 (arXiv:2104.09864),
section 3.2.2, with the planes of Hugging Face's layout, halves of a head; LLaMA-3.1's stretch,
`apply_scaling` in Meta's llama-models (models/llama3/model.py).
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from llama_jax.config import LinearRope, Llama3Rope, ModelConfig
from llama_jax.convert import mapping
from llama_jax.convert.weights import Weights

_LAYER = {
    "input_layernorm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
    "self_attn.o_proj", "post_attention_layernorm", "mlp.gate_proj", "mlp.up_proj",
    "mlp.down_proj",
}  # fmt: skip
_BLOCK_VALUES = 1 << 22


class ExactProgram:
    """The model in one dtype of NumPy, without a library.

    Args:
        weights: What it is made of.
        dtype: Of every number: float64, or float32.
    """

    def __init__(self, weights: Weights, dtype: Any):
        self.name = f"NumPy in {np.dtype(dtype).name}"
        self._weights, self._dtype = weights, dtype
        self._shapes = {tensor.name: tensor.shape for tensor in mapping.tensors_of(weights.model)}

    def embed(self, tokens: np.ndarray) -> np.ndarray:
        """The residual stream before the first layer."""
        return self._weights.rows("model.embed_tokens.weight", tokens).astype(self._dtype)

    def open_layer(self, index: int) -> Callable[[np.ndarray], np.ndarray]:
        """A function from the residual stream of a row to what a layer makes of it."""
        head_dim = self._weights.model.head_dim
        w = {name: self._read(f"model.layers.{index}.{name}.weight") for name in _LAYER}

        def layer(x: np.ndarray) -> np.ndarray:
            y = self._norm(x, w["input_layernorm"])
            q, k, v = (
                _project(y, w[f"self_attn.{name}_proj"]).reshape(len(y), -1, head_dim)
                for name in "qkv"
            )
            mixed = _attend(self._rotate(q), self._rotate(k), v)
            x = x + _project(mixed, w["self_attn.o_proj"])
            y = self._norm(x, w["post_attention_layernorm"])
            gate = _project(y, w["mlp.gate_proj"])
            with np.errstate(over="ignore"):  # exp of much becomes infinite, and the gate zero
                gate /= 1 + np.exp(-gate)
            return x + _project(gate * _project(y, w["mlp.up_proj"]), w["mlp.down_proj"])

        return layer

    def open_output(self) -> Callable[[np.ndarray], np.ndarray]:
        """A function from the last residual stream of a row to logits."""
        scale = self._read("model.norm.weight")
        tied = self._weights.model.tie_embeddings
        table = self._read("model.embed_tokens.weight" if tied else "lm_head.weight")
        return lambda x: _project(self._norm(x, scale), table)

    def _read(self, name: str) -> np.ndarray:
        return self._weights.array(name, self._shapes[name])

    def _norm(self, x: np.ndarray, scale: np.ndarray) -> np.ndarray:
        mean = np.mean(x * x, axis=-1, keepdims=True)
        return x / np.sqrt(mean + self._dtype(self._weights.model.norm_eps)) * scale

    def _rotate(self, x: np.ndarray) -> np.ndarray:
        frequencies = _frequencies(self._weights.model).astype(self._dtype)
        angles = np.arange(len(x), dtype=self._dtype)[:, None] * frequencies
        cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
        first, second = np.split(x, 2, axis=-1)
        return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def _project(x: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """`x @ matrix.T` in the dtype of `x`, which a part of the matrix has at a time."""
    step = max(1, _BLOCK_VALUES // matrix.shape[1])
    parts = (matrix[start : start + step] for start in range(0, len(matrix), step))
    return np.concatenate([x @ part.astype(x.dtype, copy=False).T for part in parts], axis=-1)


def _attend(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Heads of all tokens, mixed with those before; a key's head serves several queries'."""
    length, heads, width = q.shape
    group = heads // k.shape[1]
    before, mixed = np.tri(length, dtype=bool), np.empty_like(q)
    for head in range(heads):
        scores = q[:, head] @ k[:, head // group].T / q.dtype.type(np.sqrt(width))
        scores = np.where(before, scores, -np.inf)
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        shares /= shares.sum(-1, keepdims=True)
        mixed[:, head] = shares @ v[:, head // group]
    return mixed.reshape(length, heads * width)


def _frequencies(model: ModelConfig) -> np.ndarray:
    rope = model.rope
    plain = rope.theta ** -(np.arange(0, model.head_dim, 2) / model.head_dim)
    if isinstance(rope, LinearRope):
        return plain / rope.factor
    if not isinstance(rope, Llama3Rope):
        return plain
    turns = rope.original_seq_len * plain / (2 * np.pi)
    share = (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
    share = np.clip(share, 0, 1)
    return share * plain + (1 - share) * plain / rope.factor
