"""Which of our parameters is which tensor of Hugging Face's `LlamaForCausalLM`: the one table."""

import dataclasses
import math
from collections.abc import Callable, Iterator

import numpy as np

from llama_jax.config import ModelConfig


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """One parameter of ours and the tensors that it becomes: one a layer if ours has axis `L`.

    Attributes:
        ours: Path in the parameter tree.
        theirs: Name of the tensor; `{layer}` counts from 0.
        our_axes: Letters of our axes.
        their_axes: The same letters without `L` in their order; axes in brackets are merged.
    """

    ours: str
    theirs: str
    our_axes: str
    their_axes: str


# Rotary positions rotate halves on both sides, so queries and keys need no permutation.
PAIRS = (
    Pair(
        ours="embed.table",
        theirs="model.embed_tokens.weight",
        our_axes="V D",
        their_axes="V D",
    ),
    Pair(
        ours="blocks.attention_norm.scale",
        theirs="model.layers.{layer}.input_layernorm.weight",
        our_axes="L D",
        their_axes="D",
    ),
    Pair(
        ours="blocks.attention.query",
        theirs="model.layers.{layer}.self_attn.q_proj.weight",
        our_axes="L D N H",
        their_axes="(N H) D",
    ),
    Pair(
        ours="blocks.attention.key",
        theirs="model.layers.{layer}.self_attn.k_proj.weight",
        our_axes="L D K H",
        their_axes="(K H) D",
    ),
    Pair(
        ours="blocks.attention.value",
        theirs="model.layers.{layer}.self_attn.v_proj.weight",
        our_axes="L D K H",
        their_axes="(K H) D",
    ),
    Pair(
        ours="blocks.attention.out",
        theirs="model.layers.{layer}.self_attn.o_proj.weight",
        our_axes="L N H D",
        their_axes="D (N H)",
    ),
    Pair(
        ours="blocks.mlp_norm.scale",
        theirs="model.layers.{layer}.post_attention_layernorm.weight",
        our_axes="L D",
        their_axes="D",
    ),
    Pair(
        ours="blocks.mlp.gate",
        theirs="model.layers.{layer}.mlp.gate_proj.weight",
        our_axes="L D F",
        their_axes="F D",
    ),
    Pair(
        ours="blocks.mlp.up",
        theirs="model.layers.{layer}.mlp.up_proj.weight",
        our_axes="L D F",
        their_axes="F D",
    ),
    Pair(
        ours="blocks.mlp.down",
        theirs="model.layers.{layer}.mlp.down_proj.weight",
        our_axes="L F D",
        their_axes="D F",
    ),
    Pair(
        ours="final_norm.scale",
        theirs="model.norm.weight",
        our_axes="D",
        their_axes="D",
    ),
    Pair(
        ours="output.table",
        theirs="lm_head.weight",
        our_axes="V D",
        their_axes="V D",
    ),
)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Tensor:
    """One tensor of the Hugging Face layout, and where it comes from.

    Attributes:
        name: In their layout.
        shape: In their layout.
        pair: The line of the table that it follows.
        layer: Index along our axis `L`, or -1 where ours has none.
    """

    name: str
    shape: tuple[int, ...]
    pair: Pair
    layer: int


def axis_sizes(model: ModelConfig) -> dict[str, int]:
    """Size of each axis letter of the table."""
    return {
        "L": model.num_layers,
        "D": model.embed_dim,
        "F": model.mlp_dim,
        "N": model.num_heads,
        "K": model.num_kv_heads,
        "H": model.head_dim,
        "V": model.vocab_size,
    }


def pairs_of(model: ModelConfig) -> tuple[Pair, ...]:
    """The lines of the table that a model has: one with tied embeddings has no output table."""
    return tuple(
        pair for pair in PAIRS if not (model.tie_embeddings and pair.ours == "output.table")
    )


def our_shapes(model: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Shape of each of our parameters, by path."""
    sizes = axis_sizes(model)
    return {
        pair.ours: tuple(sizes[axis] for axis in pair.our_axes.split()) for pair in pairs_of(model)
    }


def tensors_of(model: ModelConfig) -> Iterator[Tensor]:
    """Every tensor of the Hugging Face layout, layer after layer, as a reader needs them."""
    sizes = axis_sizes(model)
    pairs = pairs_of(model)
    stacked = [i for i, pair in enumerate(pairs) if "L" in pair.our_axes]
    before, blocks, after = pairs[: stacked[0]], [pairs[i] for i in stacked], pairs[stacked[-1] :]
    order = [(pair, -1) for pair in before]
    order += [(pair, layer) for layer in range(model.num_layers) for pair in blocks]
    order += [(pair, -1) for pair in after if "L" not in pair.our_axes]
    for pair, layer in order:
        shape = tuple(math.prod(sizes[a] for a in group) for group in _groups(pair.their_axes))
        name = pair.theirs.format(layer=layer)
        yield Tensor(name=name, shape=shape, pair=pair, layer=layer)


def storage_order(pair: Pair) -> tuple[int, ...]:
    """Our axes in the order in which the bytes of their tensors lie, layer after layer."""
    ours = pair.our_axes.split()
    theirs = [axis for group in _groups(pair.their_axes) for axis in group]
    return tuple(ours.index(axis) for axis in (["L"] if "L" in ours else []) + theirs)


def to_theirs(tensor: Tensor, ours: np.ndarray) -> np.ndarray:
    """One of their tensors from our parameter, or from its layer `tensor.layer` where it has some.

    A view where the layout allows.
    """
    axes = tensor.pair.our_axes.replace("L", "").split()
    order = [axes.index(axis) for group in _groups(tensor.pair.their_axes) for axis in group]
    return ours.transpose(order).reshape(tensor.shape)


def to_ours(model: ModelConfig, read: Callable[[str], np.ndarray]) -> dict[str, np.ndarray]:
    """All of our parameters, by path, from their tensors.

    Args:
        model: Shape of the decoder.
        read: Gives their tensor of a name.

    Raises:
        ValueError: If a tensor has another shape than the model says.
    """
    sizes = axis_sizes(model)
    layers: dict[str, list[np.ndarray]] = {}
    for tensor in tensors_of(model):
        theirs = read(tensor.name)
        if theirs.shape != tensor.shape:
            raise ValueError(
                f"{tensor.name} has the shape {theirs.shape}; this model needs {tensor.shape}."
            )
        axes = [axis for group in _groups(tensor.pair.their_axes) for axis in group]
        split = theirs.reshape([sizes[axis] for axis in axes])
        wanted = tensor.pair.our_axes.replace("L", "").split()
        layers.setdefault(tensor.pair.ours, []).append(
            split.transpose([axes.index(axis) for axis in wanted])
        )
    stacked = {pair.ours for pair in PAIRS if "L" in pair.our_axes}
    return {
        ours: np.stack(parts) if ours in stacked else parts[0] for ours, parts in layers.items()
    }


def _groups(axes: str) -> list[list[str]]:
    groups: list[list[str]] = []
    merged = False
    for word in axes.replace("(", "( ").replace(")", " )").split():
        if word in "()":
            merged = word == "("
            if merged:
                groups.append([])
        elif merged:
            groups[-1].append(word)
        else:
            groups.append([word])
    return groups
