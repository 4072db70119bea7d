"""The LLaMA decoder."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

from llama_jax.config import ComputeConfig, ModelConfig
from llama_jax.model.attention import Attention, LayerCache, write
from llama_jax.model.initializers import new_param
from llama_jax.model.mlp import MLP
from llama_jax.model.norm import RMSNorm
from llama_jax.model.pipeline import Rows, run_stages
from llama_jax.model.remat import INPUT, rematerialize
from llama_jax.ops.rope import Rotation, rope_frequencies, rotation
from llama_jax.sharding import (
    check_split,
    constrain,
    constrain_stream,
    gather,
    platform,
    stage_axis,
)

MAX_UNROLLED_LAYERS = 16


class KVCache(NamedTuple):
    """Keys and values of the rows so far; slot `s` of a row belongs to its position `s`."""

    k: Float[Array, "L B S K H"]
    v: Float[Array, "L B S K H"]
    filled: Int[Array, "B S"]  # 1 where a slot holds a token


class Table(nnx.Module):
    """One vector for each token of the vocabulary."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.table = new_param(rngs, (config.vocab_size, config.embed_dim), ("vocab", "embed"))


class Block(nnx.Module):
    """Attention, then MLP; each reads a normalised residual stream and adds to it."""

    def __init__(self, config: ModelConfig, compute: ComputeConfig, *, rngs: nnx.Rngs):
        self.attention_norm = RMSNorm(config)
        self.attention = Attention(config, compute, rngs=rngs)
        self.mlp_norm = RMSNorm(config)
        self.mlp = MLP(config, compute, rngs=rngs)

    def __call__(
        self, x: Float[Array, "B T D"], turn: Rotation, segments: Int[Array, "B T"]
    ) -> Float[Array, "B T D"]:
        """Returns the residual stream after the block."""
        x = x + self.attention(self.attention_norm(x), turn, segments)
        return x + self.mlp(self.mlp_norm(x))

    def decode(
        self,
        x: Float[Array, "B T D"],
        turn: Rotation,
        positions: Int[Array, "B T"],
        filled: Int[Array, "B S"],
        cache: LayerCache,
    ) -> tuple[Float[Array, "B T D"], LayerCache]:
        """Returns the residual stream of the new tokens, and the cache with them."""
        update, cache = self.attention.decode(
            self.attention_norm(x), turn, positions, filled, cache
        )
        x = x + update
        return x + self.mlp(self.mlp_norm(x)), cache


class Llama(nnx.Module):
    """A decoder of the LLaMA family, its layers stacked along a leading axis and scanned.

    Sources: Touvron et al. 2023 (arXiv:2302.13971), section 2.2; grouped queries and scaled
    rotary positions as in Grattafiori et al. 2024 (arXiv:2407.21783), section 3.2.

    Raises:
        ValueError: If the current mesh cannot split a size of the model evenly.
    """

    def __init__(self, config: ModelConfig, compute: ComputeConfig, *, rngs: nnx.Rngs):
        check_model_split(config)

        @nnx.vmap(transform_metadata={nnx.PARTITION_NAME: "layers"})
        def stacked_blocks(rngs: nnx.Rngs) -> Block:
            return Block(config, compute, rngs=rngs)

        self.embed = Table(config, rngs=rngs)
        self.blocks = stacked_blocks(rngs.split(config.num_layers))
        self.final_norm = RMSNorm(config)
        self.output = None if config.tie_embeddings else Table(config, rngs=rngs)
        self.config = config
        self.compute = compute

    def __call__(
        self,
        tokens: Int[Array, "B T"],
        positions: Int[Array, "B T"],
        segments: Int[Array, "B T"],
    ) -> Float[Array, "B T V"]:
        """Scores of the next token, float32, all of them live at once: for short inputs."""
        return self._logits(self.hidden(tokens, positions, segments))

    def hidden(
        self,
        tokens: Int[Array, "B T"],
        positions: Int[Array, "B T"],
        segments: Int[Array, "B T"],
    ) -> Float[Array, "B T D"]:
        """What the output projection reads, in the compute dtype.

        Args:
            tokens: Ids in [0, V).
            positions: Index of each token within its document, from 0.
            segments: Document of each token within its row, from 1; 0 is padding.
        """
        table = self._whole_embedding()

        def run_blocks(
            x: Float[Array, "B T D"], positions: Int[Array, "B T"], segments: Int[Array, "B T"]
        ) -> Float[Array, "B T D"]:
            turn = self._rotation(positions)

            def run_block(x: Float[Array, "B T D"], block: Block) -> tuple[Array, None]:
                return block(checkpoint_name(x, INPUT), turn, segments), None

            body = rematerialize(run_block, self.compute.remat)
            unroll = self.config.num_layers if self._unrolled else 1
            return jax.lax.scan(body, x, self.blocks, unroll=unroll)[0]

        if stage_axis() is None:
            x = run_blocks(look_up(table, tokens), positions, segments)
        else:
            rows = Rows(tokens, positions, segments)
            x = run_stages(
                functools.partial(look_up, table), run_blocks, rows, self.compute.stage_rows
            )
        return constrain(self.final_norm(x), "batch", "seq", "act_embed")

    def streams(
        self,
        tokens: Int[Array, "B T"],
        positions: Int[Array, "B T"],
        segments: Int[Array, "B T"],
    ) -> Float[Array, "_ B T D"]:
        """The residual stream before the first block and after each, all of them live at once."""
        turn = self._rotation(positions)

        def run_block(x: Float[Array, "B T D"], block: Block) -> tuple[Array, Array]:
            x = block(x, turn, segments)
            return x, x

        first = self._embed(tokens)
        _, after = jax.lax.scan(run_block, first, self.blocks)
        return jnp.concatenate([first[None], after])

    @property
    def _unrolled(self) -> bool:
        # On CPU a scan spends a tenth of the step copying into and out of its stacked arrays. A
        # deep model is scanned still, so that it compiles in bounded time; so is one that
        # recomputes, which XLA could otherwise merge with the forward pass.
        few = self.config.num_layers <= MAX_UNROLLED_LAYERS
        return few and self.compute.remat == "none" and platform() == "cpu"

    def decode(
        self, tokens: Int[Array, "B T"], positions: Int[Array, "B T"], cache: KVCache
    ) -> tuple[Float[Array, "B T V"], KVCache]:
        """Scores of the token after each new one, given all that the cache holds.

        Args:
            tokens: Next tokens of each row: a whole prompt, or one.
            positions: Their places in the row, from 0; negative ones are padding, whose scores
                mean nothing and which leave no trace in the cache.
            cache: From `init_cache`, or from the call before.

        Returns:
            Float32 logits of the new tokens, and the cache that holds them.
        """
        filled = write(cache.filled, positions, jnp.ones_like(positions))
        turn = self._rotation(positions)

        def run_block(
            x: Float[Array, "B T D"], layer: tuple[Block, LayerCache]
        ) -> tuple[Array, LayerCache]:
            block, layer_cache = layer
            return block.decode(x, turn, positions, filled, layer_cache)

        layers = (self.blocks, LayerCache(cache.k, cache.v))
        x, (k, v) = jax.lax.scan(run_block, self._embed(tokens), layers)
        return self._logits(self.final_norm(x)), KVCache(k, v, filled)

    @property
    def output_table(self) -> Float[Array, "V D"]:
        """Rows of the output projection; those of the embedding where the two are tied."""
        return (self.embed if self.output is None else self.output).table[...]

    def _embed(self, tokens: Int[Array, "B T"]) -> Float[Array, "B T D"]:
        return look_up(self._whole_embedding(), tokens)

    def _whole_embedding(self) -> Float[Array, "V D"]:
        table = self.embed.table.astype(resolve_dtype(self.compute))
        # Made whole along `embed` before the lookup: XLA would otherwise replicate the activation.
        # The second pin is of the table, the first one of its gradient.
        table = constrain(gather(table, "vocab", "embed"), "vocab", "embed")
        return constrain(table, "vocab", None)

    def _rotation(self, positions: Int[Array, "B T"]) -> Rotation:
        frequencies = rope_frequencies(self.config.rope, self.config.head_dim)
        return rotation(positions, frequencies)

    def _logits(self, hidden: Float[Array, "B T D"]) -> Float[Array, "B T V"]:
        table = self.output_table.astype(hidden.dtype)
        logits = jnp.einsum("BTD,VD->BTV", hidden, table, preferred_element_type=jnp.float32)
        return constrain(logits, "batch", "seq", "act_vocab")


def look_up(table: Float[Array, "V D"], tokens: Int[Array, "B T"]) -> Float[Array, "B T D"]:
    """The residual stream before the first block."""
    return constrain_stream(jnp.take(table, tokens, axis=0))


def init_cache(config: ModelConfig, batch_size: int, max_len: int, dtype: jnp.dtype) -> KVCache:
    """An empty cache of `max_len` positions a row.

    Raises:
        ValueError: If `max_len` exceeds the model's context.
    """
    if max_len > config.max_seq_len:
        raise ValueError(
            f"a cache of {max_len} tokens exceeds model.max_seq_len={config.max_seq_len}: "
            "shorten the prompt, or ask for fewer new tokens."
        )
    shape = (config.num_layers, batch_size, max_len, config.num_kv_heads, config.head_dim)
    empty = jnp.zeros(shape, dtype)
    return KVCache(empty, empty, jnp.zeros((batch_size, max_len), jnp.int32))


def resolve_dtype(compute: ComputeConfig) -> jnp.dtype:
    """Of activations and matmuls: "auto" is bfloat16 on accelerators and float32 on CPU."""
    if compute.dtype == "auto":
        return jnp.dtype("float32" if platform() == "cpu" else "bfloat16")
    return jnp.dtype(compute.dtype)


def check_model_split(config: ModelConfig) -> None:
    """Refuses a mesh that cannot split the model's sizes evenly.

    Raises:
        ValueError: Naming the size and the mesh axes that split it.
    """
    check_split("layers", model__num_layers=config.num_layers)
    check_split("embed", model__embed_dim=config.embed_dim)
    check_split("heads", model__num_heads=config.num_heads)
    check_split("kv_heads", model__num_kv_heads=config.num_kv_heads)
    check_split("mlp", model__mlp_dim=config.mlp_dim)
    check_split("vocab", model__vocab_size=config.vocab_size)
