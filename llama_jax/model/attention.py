"""Grouped-query self-attention."""

from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int, Num

from llama_jax.config import ComputeConfig, ModelConfig
from llama_jax.model.initializers import new_param, residual_stddev
from llama_jax.ops.attention import attend
from llama_jax.ops.project import project
from llama_jax.ops.rope import Rotation, apply_rope
from llama_jax.sharding import constrain, constrain_stream, gather


class LayerCache(NamedTuple):
    """Keys and values that one layer has seen; slot `s` belongs to position `s` of its row."""

    k: Float[Array, "B S K H"]
    v: Float[Array, "B S K H"]


class Attention(nnx.Module):
    """Causal self-attention in which a token sees only its own document.

    Sources: grouped queries, Ainslie et al. 2023 (arXiv:2305.13245); rotary positions,
    Su et al. 2021 (arXiv:2104.09864).
    """

    def __init__(self, config: ModelConfig, compute: ComputeConfig, *, rngs: nnx.Rngs):
        D, N, K, H = config.embed_dim, config.num_heads, config.num_kv_heads, config.head_dim
        into_residual = residual_stddev(config)
        self.query = new_param(rngs, (D, N, H), ("embed", "heads", "head_dim"))
        self.key = new_param(rngs, (D, K, H), ("embed", "kv_heads", "head_dim"))
        self.value = new_param(rngs, (D, K, H), ("embed", "kv_heads", "head_dim"))
        self.out = new_param(rngs, (N, H, D), ("heads", "head_dim", "embed"), stddev=into_residual)
        self.compute = compute

    def __call__(
        self, x: Float[Array, "B T D"], turn: Rotation, segments: Int[Array, "B T"]
    ) -> Float[Array, "B T D"]:
        """Mixes each token with its predecessors in the same document.

        Args:
            x: Normalised residual stream.
            turn: Rotation of each token, by its index within its document.
            segments: Document of each token within its row, from 1; 0 is padding.

        Returns:
            The update to add to the residual stream, in the dtype of `x`.
        """
        q, k, v = self._project(constrain(x, "batch", "seq", "act_embed"), turn)
        mixed = attend(
            q,
            k,
            v,
            q_segments=segments,
            kv_segments=segments,
            backend=self.compute.attention,
            tiles=self.compute.tiles,
            context=self.compute.context,
        )
        return self._leave_heads(mixed)

    def decode(
        self,
        x: Float[Array, "B T D"],
        turn: Rotation,
        positions: Int[Array, "B T"],
        filled: Int[Array, "B S"],
        cache: LayerCache,
    ) -> tuple[Float[Array, "B T D"], LayerCache]:
        """Continues each row: stores the new keys and values, then attends to all of the row.

        Args:
            x: Normalised residual stream of the new tokens.
            turn: Their rotation.
            positions: Their place in the row; a negative one is padding, and is not stored.
            filled: 1 where a slot of the cache holds a token, the new ones included.
            cache: What the layer has seen before.

        Returns:
            The update to add to the residual stream, and the cache with the new tokens.
        """
        q, k, v = self._project(x, turn)
        cache = LayerCache(write(cache.k, positions, k), write(cache.v, positions, v))
        mixed = attend(
            q,
            cache.k.astype(q.dtype),
            cache.v.astype(q.dtype),
            q_segments=(positions >= 0).astype(filled.dtype),
            kv_segments=filled,
            q_indices=positions,
        )
        return self._leave_heads(mixed), cache

    def _project(
        self, x: Float[Array, "B T D"], turn: Rotation
    ) -> tuple[Float[Array, "B T N H"], Float[Array, "B T K H"], Float[Array, "B T K H"]]:
        def into(weight: nnx.Param[Array], heads: str) -> Float[Array, "B T _ H"]:
            whole = gather(weight.astype(x.dtype), "embed", heads, "head_dim")
            return project(x, whole, self.compute.matmul)

        q, k = into(self.query, "heads"), into(self.key, "kv_heads")
        v = into(self.value, "kv_heads")
        q = constrain(apply_rope(q, turn), "batch", "seq", "act_heads", None)
        k = constrain(apply_rope(k, turn), "batch", "seq", "act_kv_heads", None)
        v = constrain(v, "batch", "seq", "act_kv_heads", None)
        return checkpoint_name(q, "query"), checkpoint_name(k, "key"), checkpoint_name(v, "value")

    def _leave_heads(self, mixed: Float[Array, "B T N H"]) -> Float[Array, "B T D"]:
        mixed = constrain(mixed, "batch", "seq", "act_heads", None)
        whole = gather(self.out.astype(mixed.dtype), "heads", "head_dim", "embed")
        out = project(mixed, whole, self.compute.matmul)
        return constrain_stream(out)


def write(
    slots: Num[Array, "B S *item"], positions: Int[Array, "B T"], new: Num[Array, "B T *item"]
) -> Num[Array, "B S *item"]:
    """Puts each row's new items into the slots of their positions; negative ones are dropped."""
    rows = jnp.arange(slots.shape[0])[:, None]
    target = jnp.where(positions < 0, slots.shape[1], positions)
    return slots.at[rows, target].set(new.astype(slots.dtype), mode="drop")
