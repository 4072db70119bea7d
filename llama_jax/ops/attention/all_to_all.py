"""Rows that devices split, exchanged for heads: each device then mixes whole rows of its own."""

import math
from typing import Protocol

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from llama_jax.sharding import check_split, constrain, num_shards, split_heads_for_rows


class Attend(Protocol):
    """Attention of any backend, under the layout that is current."""

    def __call__(
        self,
        q: Float[Array, "B T N H"],
        k: Float[Array, "B S K H"],
        v: Float[Array, "B S K H"],
        q_segments: Int[Array, "B T"],
        kv_segments: Int[Array, "B S"],
    ) -> Float[Array, "B T N H"]: ...


def attend_all_to_all(
    attend: Attend,
    q: Float[Array, "B T N H"],
    k: Float[Array, "B T K H"],
    v: Float[Array, "B T K H"],
    segments: Int[Array, "B T"],
) -> Float[Array, "B T N H"]:
    """Attention over whole rows by devices that each hold a share of the heads.

    XLA turns the change of layout into an all-to-all among the devices that split a row. Where
    there are fewer key heads than devices, each is sent to all the devices whose queries read it.

    Source: DeepSpeed-Ulysses, Jacobs et al. 2023 (arXiv:2309.14509), section 3.

    Raises:
        ValueError: If the query heads do not divide among the devices.
    """
    with split_heads_for_rows():
        check_split("act_heads", model__num_heads=q.shape[2])
        copies = math.lcm(k.shape[2], num_shards("act_kv_heads")) // k.shape[2]
        k, v = (jnp.repeat(x, copies, axis=2) if copies > 1 else x for x in (k, v))
        q = constrain(q, "batch", "seq", "act_heads", None)
        k = constrain(k, "batch", "seq", "act_kv_heads", None)
        v = constrain(v, "batch", "seq", "act_kv_heads", None)
        ids = constrain(segments, "batch", "seq")
        mixed = constrain(attend(q, k, v, ids, ids), "batch", "seq", "act_heads", None)
    return constrain(mixed, "batch", "seq", "act_heads", None)
