"""Rows that devices split, mixed while keys and values travel from device to device."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, Int

from llama_jax.ops.attention.blocks import (
    Keys,
    Queries,
    Upstream,
    attend_block,
    block_gradients,
    merge,
)
from llama_jax.sharding import num_shards, partition_spec


class Halves(NamedTuple):
    """The two pieces of a row that a device has: one as far from the start as one from the end."""

    early: Any
    late: Any


class Ring(NamedTuple):
    """The devices that split a row.

    Attributes:
        axis: Their mesh axis.
        size: How many they are.
    """

    axis: Any
    size: int

    def shift(self, tree: Any) -> Any:
        """What each device holds goes to the next one."""
        return self.send(tree, lambda device: (device + 1) % self.size)

    def send(self, tree: Any, to: Callable[[int], int]) -> Any:
        """What each device holds goes to the one that `to` names."""
        pairs = [(device, to(device)) for device in range(self.size)]
        return jax.tree.map(lambda x: jax.lax.ppermute(x, self.axis, pairs), tree)

    def owner(self, piece: int) -> int:
        """The device that works on a piece, of which there are twice as many as devices."""
        return min(piece, 2 * self.size - 1 - piece)


def attend_ring(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B T K H"],
    v: Float[Array, "B T K H"],
    segments: Int[Array, "B T"],
) -> Float[Array, "B T N H"]:
    """Attention in which no device ever holds the keys of a whole row.

    A row is cut into twice as many pieces as there are devices; each works on one from the start
    and the one as far from the end, so that under a causal mask all have the same work. Keys and
    values go round, what each round adds is merged, and the backward pass goes round again.

    Sources: Liu et al. 2023 (arXiv:2310.01889), section 3; the pieces, Grattafiori et al. 2024
    (arXiv:2407.21783), section 3.3.2.

    Raises:
        ValueError: If a row cannot be cut into pieces of the same size.
    """
    ring = Ring(partition_spec("seq")[0], num_shards("seq"))
    if q.shape[1] % (2 * ring.size):
        raise ValueError(
            f"data.seq_len={q.shape[1]} must be a multiple of {2 * ring.size}: with "
            f"compute.context='ring' each of mesh.context={ring.size} devices has two pieces of it."
        )
    q_spec = partition_spec("batch", "seq", "act_heads", None)
    kv_spec = partition_spec("batch", "seq", "act_kv_heads", None)

    @functools.partial(
        jax.shard_map,
        in_specs=(q_spec, kv_spec, kv_spec, partition_spec("batch", "seq")),
        out_specs=q_spec,
        check_vma=False,
    )
    def run(q: Array, k: Array, v: Array, ids: Array) -> Array:
        grouped = q.reshape(*q.shape[:2], k.shape[2], -1, q.shape[3])
        pieces = _from_both_ends(ring, (Queries(grouped, ids), Keys(k, v, ids)))
        queries, keys = (Halves(*halves) for halves in zip(*pieces, strict=True))
        return _in_order(ring, _mix(ring, queries, keys)).reshape(q.shape)

    return run(q * (1 / math.sqrt(q.shape[-1])), k, v, segments)


def _from_both_ends(ring: Ring, rows: Any) -> Halves:
    """Gives device `i`, which holds pieces 2i and 2i + 1 of a row, piece `i` and its mirror."""
    evens, odds = (
        jax.tree.map(lambda x, half=half: jnp.split(x, 2, axis=1)[half], rows) for half in (0, 1)
    )
    evens = ring.send(evens, lambda device: ring.owner(2 * device))
    odds = ring.send(odds, lambda device: ring.owner(2 * device + 1))
    even = jax.lax.axis_index(ring.axis) % 2 == 0
    return Halves(_where(even, evens, odds), _where(even, odds, evens))


def _in_order(ring: Ring, halves: Any) -> Float[Array, "B T *item"]:
    """Undoes `_from_both_ends`, of one array."""
    even = jax.lax.axis_index(ring.axis) % 2 == 0
    evens, odds = _where(even, *halves), _where(even, *reversed(halves))
    owners_of_evens = [ring.owner(2 * device) for device in range(ring.size)]
    owners_of_odds = [ring.owner(2 * device + 1) for device in range(ring.size)]
    evens, odds = ring.send(evens, owners_of_evens.index), ring.send(odds, owners_of_odds.index)
    return jnp.concatenate([evens, odds], axis=1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _mix(ring: Ring, queries: Halves, keys: Halves) -> Halves:
    return _forward(ring, queries, keys)[0]


def _forward(ring: Ring, queries: Halves, keys: Halves) -> tuple[Halves, Halves]:
    early = attend_block(queries.early, keys.early, causal=True)
    late = attend_block(queries.late, keys.late, causal=True)
    late = merge(late, attend_block(queries.late, keys.early))
    for rounds in range(1, ring.size):
        keys = ring.shift(keys)
        earlier = _are_of_an_earlier_device(ring, rounds)
        late = merge(late, attend_block(queries.late, keys.early))
        more = attend_block(_pick(earlier, queries), _pick(earlier, keys))
        early = _where(earlier, merge(early, more), early)
        late = _where(earlier, late, merge(late, more))
    mixed = Halves(*(half.values.astype(queries.early.q.dtype) for half in (early, late)))
    return mixed, Halves(early.log_sums, late.log_sums)


def _keep_for_backward(ring: Ring, queries: Halves, keys: Halves) -> tuple[Halves, Any]:
    mixed, log_sums = checkpoint_name(_forward(ring, queries, keys), "attention")
    return mixed, (queries, keys, mixed, log_sums)


def _backward(ring: Ring, kept: Any, d_mixed: Halves) -> tuple[Halves, Halves]:
    queries, keys, mixed, log_sums = kept
    along = jax.tree.map(lambda d, x: jnp.sum(d * x, axis=-1, dtype=jnp.float32), d_mixed, mixed)
    upstream = Halves(*map(Upstream, d_mixed, log_sums, along))
    inputs = queries, keys

    d_q_early, d_early = block_gradients(queries.early, keys.early, upstream.early, causal=True)
    d_q_late, d_late = block_gradients(queries.late, keys.late, upstream.late, causal=True)
    d_q, d_kv = Halves(d_q_early, d_q_late), Halves(d_early, d_late)
    for rounds in range(ring.size):
        if rounds > 0:
            keys, d_kv = ring.shift((keys, d_kv))
            earlier = _are_of_an_earlier_device(ring, rounds)
            chosen = _pick(earlier, queries), _pick(earlier, keys), _pick(earlier, upstream)
            d_q_more, d_more = block_gradients(*chosen)
            d_q, d_kv = _add_picked(earlier, d_q, d_q_more), _add_picked(earlier, d_kv, d_more)
        d_q_late, d_early = block_gradients(queries.late, keys.early, upstream.late)
        d_q = d_q._replace(late=d_q.late + d_q_late)
        d_kv = d_kv._replace(early=jax.tree.map(jnp.add, d_kv.early, d_early))
    d_kv = ring.shift(d_kv)

    none: Any = np.zeros(queries.early.ids.shape, jax.dtypes.float0)
    gradients = (
        Halves(*(Queries(d, none) for d in d_q)),
        Halves(*(Keys(d_k, d_v, none) for d_k, d_v in d_kv)),
    )
    return jax.tree.map(lambda d, x: d if d is none else d.astype(x.dtype), gradients, inputs)


_mix.defvjp(_keep_for_backward, _backward)


def _are_of_an_earlier_device(ring: Ring, rounds: int) -> Bool[Array, ""]:
    """Whether the keys that are here after so many rounds have come from a device before this one.

    Both pieces of this device then come after their early piece. Otherwise this one's late piece
    comes after both of theirs. The two cases have the same shapes, so that no device waits.
    """
    return jax.lax.axis_index(ring.axis) >= rounds


def _pick(early: Bool[Array, ""], halves: Halves) -> Any:
    return _where(early, halves.early, halves.late)


def _add_picked(early: Bool[Array, ""], halves: Halves, more: Any) -> Halves:
    """Adds to the half that `_pick` picks."""
    added = Halves(*(jax.tree.map(jnp.add, half, more) for half in halves))
    return Halves(_where(early, added.early, halves.early), _where(early, halves.late, added.late))


def _where(condition: Bool[Array, ""], one: Any, other: Any) -> Any:
    return jax.tree.map(functools.partial(jnp.where, condition), one, other)
