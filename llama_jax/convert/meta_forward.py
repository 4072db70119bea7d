"""Meta's model computed as Meta's own code does, in its layout, so that a conversion can be judged.

It shares no line with ours, nor with the conversion: channels of a plane are adjacent and turned as
complex numbers, keys are repeated, everything is float32 in PyTorch.

Source: Meta's llama-models repository, models/llama3/model.py.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np

from llama_jax.config import Llama3Rope, ModelConfig, PlainRope
from llama_jax.convert import meta
from llama_jax.convert.agreement import Forward
from llama_jax.convert.meta_import import Shards, require_torch

# Of the tensors that ranks have slices of, the axis that is split.
_SPLIT = {"wq": 0, "wk": 0, "wv": 0, "wo": 1, "w1": 0, "w2": 1, "w3": 0, "output": 0}


def meta_forward(folder: Path, model: ModelConfig) -> Forward:
    """A function from a row of tokens to logits, and to what each layer reads.

    Args:
        folder: With consolidated.NN.pth.
        model: Numbers that `params.json` says, or leaves open.

    Raises:
        ValueError: If PyTorch is not installed, or a file cannot be read.
    """
    torch = require_torch()
    shards = Shards(folder)
    names = shards.names()
    weights = {
        name: torch.from_numpy(_read(shards, name, model)) for name in names - {meta.WAVELENGTHS}
    }
    if meta.OUTPUT not in weights:
        weights[meta.OUTPUT] = weights[meta.EMBEDDING]

    def forward(tokens: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        with torch.no_grad():
            return _forward(torch, weights, model, torch.from_numpy(tokens).long())

    return forward


def _read(shards: Shards, name: str, model: ModelConfig) -> np.ndarray:
    kind = name.split(".")[-2]
    axis = _SPLIT.get(kind)
    if kind == "tok_embeddings":
        axis = 0 if shards.shapes(name)[0][1] == model.embed_dim else 1
    return shards.read(name, axis).astype(np.float32)


def _forward(
    torch: Any, weights: dict[str, Any], model: ModelConfig, tokens: Any
) -> tuple[np.ndarray, list[np.ndarray]]:
    def norm(x: Any, name: str) -> Any:
        mean = x.pow(2).mean(-1, keepdim=True)
        return x * torch.rsqrt(mean + model.norm_eps) * weights[f"{name}.weight"]

    def linear(x: Any, name: str) -> Any:
        return x @ weights[f"{name}.weight"].T

    T, H = tokens.numel(), model.head_dim
    angles = torch.outer(torch.arange(T).double(), torch.tensor(_frequencies(model)))
    turn = torch.polar(torch.ones_like(angles), angles).to(torch.complex64)[:, None]
    mask = torch.full((T, T), -torch.inf).triu(1)
    x = weights[meta.EMBEDDING][tokens]
    read = []
    for layer in range(model.num_layers):
        read.append(x.numpy())
        at = f"layers.{layer}"
        y = norm(x, f"{at}.attention_norm")
        q, k, v = (
            linear(y, f"{at}.attention.{name}").view(T, -1, H) for name in ("wq", "wk", "wv")
        )
        q, k = (_rotate(torch, channels, turn) for channels in (q, k))
        k, v = (z.repeat_interleave(q.shape[1] // z.shape[1], dim=1) for z in (k, v))
        scores = torch.einsum("tnh,snh->nts", q, k) / math.sqrt(H) + mask
        mixed = torch.einsum("nts,snh->tnh", scores.softmax(-1), v).reshape(T, -1)
        x = x + linear(mixed, f"{at}.attention.wo")
        y = norm(x, f"{at}.ffn_norm")
        gate = torch.nn.functional.silu(linear(y, f"{at}.feed_forward.w1"))
        x = x + linear(gate * linear(y, f"{at}.feed_forward.w3"), f"{at}.feed_forward.w2")
    return linear(norm(x, "norm"), "output").numpy(), read


def _rotate(torch: Any, x: Any, turn: Any) -> Any:
    planes = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2))
    return torch.view_as_real(planes * turn).flatten(-2)


def _frequencies(model: ModelConfig) -> list[float]:
    rope = model.rope
    plain = [rope.theta ** (-channel / model.head_dim) for channel in range(0, model.head_dim, 2)]
    if isinstance(rope, PlainRope):
        return plain
    assert isinstance(rope, Llama3Rope), "Meta's layout knows no other"
    stretched = []
    for frequency in plain:
        turns = rope.original_seq_len * frequency / (2 * math.pi)
        share = (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
        share = min(max(share, 0.0), 1.0)
        stretched.append((1 - share) * frequency / rope.factor + share * frequency)
    return stretched
