"""Meta's model computed as Meta's own code does, in its layout, so that a conversion can be judged.

It shares no line with ours, nor with the conversion: channels of a plane are adjacent and turned as
complex numbers, keys are repeated, everything is float32 in PyTorch.

Source: Meta's llama-models repository, models/llama3/model.py.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from llama_jax.config import Llama3Rope, ModelConfig, PlainRope
from llama_jax.convert import meta
from llama_jax.convert.meta_shards import Shards, require_torch

# Of the tensors that ranks have slices of, the axis that is split.
_SPLIT = {"wq": 0, "wk": 0, "wv": 0, "wo": 1, "w1": 0, "w2": 1, "w3": 0, "output": 0}
_LAYER = (
    "attention.wq", "attention.wk", "attention.wv", "attention.wo", "feed_forward.w1",
    "feed_forward.w2", "feed_forward.w3", "attention_norm", "ffn_norm",
)  # fmt: skip


class MetaProgram:
    """Meta's model on Meta's files, in float32 PyTorch.

    Args:
        folder: With consolidated.NN.pth.
        model: Numbers that `params.json` says, or leaves open.

    Raises:
        ValueError: If PyTorch is not installed, or a file cannot be read.
    """

    name = "Meta's model, in PyTorch"

    def __init__(self, folder: Path, model: ModelConfig):
        self._torch, self._model = require_torch(), model
        self._shards = Shards(folder)

    def embed(self, tokens: np.ndarray) -> np.ndarray:
        """The residual stream before the first layer."""
        by_rows = self._shards.shapes(meta.EMBEDDING)[0][1] == self._model.embed_dim
        table = self._shards.read(meta.EMBEDDING, 0 if by_rows else 1)
        return table[tokens].astype(np.float32)

    def open_layer(self, index: int) -> Callable[[np.ndarray], np.ndarray]:
        """A function from the residual stream of a row to what a layer makes of it."""
        w = {name: self._read(f"layers.{index}.{name}.weight") for name in _LAYER}

        def run(x: np.ndarray) -> np.ndarray:
            with self._torch.no_grad():
                return self._layer(w, self._torch.from_numpy(x)).numpy()

        return run

    def open_output(self) -> Callable[[np.ndarray], np.ndarray]:
        """A function from the last residual stream of a row to logits."""
        scale = self._read("norm.weight")
        if meta.OUTPUT in self._shards.names():
            table = self._read(meta.OUTPUT)
        else:
            by_rows = self._shards.shapes(meta.EMBEDDING)[0][1] == self._model.embed_dim
            table = self._shards.read(meta.EMBEDDING, 0 if by_rows else 1).astype(np.float32)
            table = self._torch.from_numpy(table)

        def run(x: np.ndarray) -> np.ndarray:
            with self._torch.no_grad():
                return (self._norm(self._torch.from_numpy(x), scale) @ table.T).numpy()

        return run

    def _read(self, name: str) -> Any:
        value = self._shards.read(name, _SPLIT.get(name.split(".")[-2]))
        return self._torch.from_numpy(value.astype(np.float32))

    def _layer(self, w: dict[str, Any], x: Any) -> Any:
        torch, model = self._torch, self._model
        T, H = len(x), model.head_dim
        angles = torch.outer(torch.arange(T).double(), torch.tensor(_frequencies(model)))
        turn = torch.polar(torch.ones_like(angles), angles).to(torch.complex64)[:, None]
        mask = torch.full((T, T), -torch.inf).triu(1)
        y = self._norm(x, w["attention_norm"])
        q, k, v = ((y @ w[f"attention.{name}"].T).view(T, -1, H) for name in ("wq", "wk", "wv"))
        q, k = (_rotate(torch, channels, turn) for channels in (q, k))
        k, v = (z.repeat_interleave(q.shape[1] // z.shape[1], dim=1) for z in (k, v))
        scores = torch.einsum("tnh,snh->nts", q, k) / math.sqrt(H) + mask
        mixed = torch.einsum("nts,snh->tnh", scores.softmax(-1), v).reshape(T, -1)
        x = x + mixed @ w["attention.wo"].T
        y = self._norm(x, w["ffn_norm"])
        gate = torch.nn.functional.silu(y @ w["feed_forward.w1"].T)
        return x + (gate * (y @ w["feed_forward.w3"].T)) @ w["feed_forward.w2"].T

    def _norm(self, x: Any, scale: Any) -> Any:
        mean = x.pow(2).mean(-1, keepdim=True)
        return x * self._torch.rsqrt(mean + self._model.norm_eps) * scale


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
