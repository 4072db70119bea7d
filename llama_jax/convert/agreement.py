"""Whether two folders hold the same model: the same bytes, and the same logits in two libraries."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from llama_jax.config import ComputeConfig, MeshConfig, ModelConfig
from llama_jax.convert import mapping
from llama_jax.convert.stored import numpy_dtype

MAX_LOGIT_DIFFERENCE = 1e-4
_ROW_TOKENS = 256
# Of a row of tokens: logits, and what each layer reads.
Forward = Callable[[np.ndarray], tuple[np.ndarray, list[np.ndarray]]]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Weights:
    """A model's tensors in the Hugging Face layout, not yet read.

    Attributes:
        model: Its shape.
        dtypes: Of each tensor, by name.
        read: Gives the bytes of a tensor, in pieces.
    """

    model: ModelConfig
    dtypes: Mapping[str, str]
    read: Callable[[str], Iterator[memoryview]]

    def array(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """A tensor in memory, as float32."""
        data = b"".join(bytes(piece) for piece in self.read(name))
        return np.frombuffer(data, numpy_dtype(self.dtypes[name])).reshape(shape).astype(np.float32)


def compare_weights(first: Weights, second: Weights) -> dict[str, Any]:
    """Compares two models bit by bit, a tensor at a time.

    Returns:
        "identical", the number of tensors compared, and what differs, by name.
    """
    different = []
    if first.model != second.model:
        different += [
            f"model.{field.name}: {ours!r} and {theirs!r}"
            for field in dataclasses.fields(ModelConfig)
            if (ours := getattr(first.model, field.name))
            != (theirs := getattr(second.model, field.name))
        ]
    for name in sorted(first.dtypes.keys() | second.dtypes.keys()):
        kinds = first.dtypes.get(name), second.dtypes.get(name)
        if kinds[0] != kinds[1]:
            different.append(f"{name}: {kinds[0] or 'absent'} and {kinds[1] or 'absent'}")
        elif _digest(first.read(name)) != _digest(second.read(name)):
            different.append(f"{name}: other bytes")
    return {
        "identical": not different,
        "tensors": len(first.dtypes.keys() | second.dtypes.keys()),
        "different": different,
    }


def compare_logits(ours: Weights, theirs: Forward, tokens: np.ndarray) -> dict[str, Any]:
    """Runs our model and another's program on the same tokens, both in float32.

    Args:
        ours: What our model is made of.
        theirs: Of a row of tokens: logits, and what each layer reads.
        tokens: Ids, in rows of at most 256 that see nothing of each other.

    Returns:
        Over all positions: largest absolute difference of logits, largest KL divergence in nats,
        share of positions with the same best token; the largest difference after each layer
        relative to the layer's largest value, and the first layer where it exceeds 1e-4.
    """
    run = our_forward(ours)
    length = min(_ROW_TOKENS, ours.model.max_seq_len, tokens.size)
    rows = tokens[: tokens.size // length * length].reshape(-1, length)
    worst, kl, agree, scale = 0.0, 0.0, 0, 1.0
    per_layer = np.zeros(ours.model.num_layers + 1)
    for row in rows:
        expected, their_layers = theirs(row)
        logits, layers = run(row[None])
        got = np.asarray(logits[0])
        scale = max(scale, float(np.abs(expected).max()))
        worst = max(worst, float(np.abs(got - expected).max()))
        kl = max(kl, float(_kl(expected, got).max()))
        agree += int((got.argmax(-1) == expected.argmax(-1)).sum())
        for i, layer in enumerate(their_layers):
            gap = np.abs(np.asarray(layers[i][0]) - layer).max()
            per_layer[i] = max(per_layer[i], gap / np.abs(layer).max())
    per_layer[-1] = worst / scale
    beyond = np.flatnonzero(per_layer > MAX_LOGIT_DIFFERENCE)
    return {
        "agrees": worst <= MAX_LOGIT_DIFFERENCE,
        "tokens": int(rows.size),
        "max_abs_logit_difference": worst,
        "max_kl_nats": kl,
        "argmax_agreement": agree / rows.size,
        "largest_logit": scale,
        "relative_difference_after_layer": [float(f"{gap:.3g}") for gap in per_layer],
        "first_layer_that_differs": int(beyond[0]) if beyond.size else None,
    }


def transformers_forward(folder: Path) -> Forward:
    """What transformers computes with a folder that it loads, in float32.

    Raises:
        ValueError: If PyTorch or transformers is not installed.
    """
    torch, auto_model = require_transformers()
    model = auto_model.from_pretrained(folder, dtype=torch.float32).eval()

    def forward(tokens: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        with torch.no_grad():
            ids = torch.from_numpy(tokens[None]).long()
            out = model(input_ids=ids, output_hidden_states=True)
        # The last of theirs is normalised already: the logits stand for that layer.
        return out.logits[0].numpy(), [layer[0].numpy() for layer in out.hidden_states[:-1]]

    return forward


def require_transformers() -> tuple[Any, Any]:
    """PyTorch, and transformers' `AutoModelForCausalLM`.

    Raises:
        ValueError: If one of the two is not installed.
    """
    try:
        import torch  # pyright: ignore[reportMissingImports]
        from transformers import (  # pyright: ignore[reportMissingImports]
            AutoModelForCausalLM,
        )
    except ImportError as error:
        raise ValueError(
            f"logits are compared with those of transformers ({error}): "
            "pip install 'llama-jax[parity]'."
        ) from error
    return torch, AutoModelForCausalLM


def our_forward(weights: Weights) -> Callable[[np.ndarray], tuple[Any, list[Any]]]:
    """A function from tokens to logits, and to what each layer reads."""
    import jax
    import jax.numpy as jnp
    from flax import nnx

    from llama_jax.model import abstract_params
    from llama_jax.ops.rope import rope_frequencies, rotation
    from llama_jax.sharding import make_mesh, use_layout

    shapes = {tensor.name: tensor.shape for tensor in mapping.tensors_of(weights.model)}
    values = mapping.to_ours(weights.model, lambda name: weights.array(name, shapes[name]))
    mesh = make_mesh(MeshConfig(), devices=jax.local_devices()[:1])
    with use_layout(mesh):
        graphdef, params = abstract_params(weights.model, ComputeConfig(dtype="float32"))
    nested: dict[str, Any] = {}
    for path, value in values.items():
        *parents, last = path.split(".")
        place = nested
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = jnp.asarray(value)
    nnx.replace_by_pure_dict(params, nested)

    @jax.jit
    def run(params: Any, tokens: Any) -> tuple[Any, list[Any]]:
        model = nnx.merge(graphdef, params)
        positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
        segments = jnp.ones_like(positions)
        logits = model(tokens, positions, segments)
        config = model.config
        turn = rotation(positions, rope_frequencies(config.rope, config.head_dim))
        x = jnp.take(model.embed.table[...], tokens, axis=0)
        inner, blocks = nnx.split(model.blocks)
        layers = []
        for layer in range(config.num_layers):
            layers.append(x)
            block = nnx.merge(inner, jax.tree.map(lambda leaf, layer=layer: leaf[layer], blocks))
            x = block(x, turn, segments)
        return logits, layers

    def forward(tokens: np.ndarray) -> tuple[Any, list[Any]]:
        with use_layout(mesh):
            return run(params, jnp.asarray(tokens, jnp.int32))

    return forward


def _kl(expected: np.ndarray, got: np.ndarray) -> np.ndarray:
    p, q = _log_softmax(expected), _log_softmax(got)
    return np.sum(np.exp(p) * (p - q), axis=-1)


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def _digest(pieces: Iterator[memoryview]) -> bytes:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.digest()
