"""Attention of some queries to some keys of a row, in plain XLA, to be merged with the rest."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from llama_jax.ops.attention.xla import MASKED

ROWS = 512  # queries whose scores are live at once


class Queries(NamedTuple):
    """Scaled queries of each group of heads, and their documents."""

    q: Float[Array, "B R K G H"]
    ids: Int[Array, "B R"]


class Keys(NamedTuple):
    """Keys, values and their documents."""

    k: Float[Array, "B S K H"]
    v: Float[Array, "B S K H"]
    ids: Int[Array, "B S"]


class Mixed(NamedTuple):
    """Values mixed by a softmax over some keys, and the logarithm of its normaliser; float32."""

    values: Float[Array, "B R K G H"]
    log_sums: Float[Array, "B R K G"]


class Upstream(NamedTuple):
    """What the gradients of a block need of the whole row.

    Attributes:
        d_mixed: Gradient of the output.
        log_sums: Normaliser over all the keys that a query sees.
        along: Inner product of the output and its gradient.
    """

    d_mixed: Float[Array, "B R K G H"]
    log_sums: Float[Array, "B R K G"]
    along: Float[Array, "B R K G"]


def attend_block(queries: Queries, keys: Keys, *, causal: bool = False) -> Mixed:
    """Mixes the values of the keys that are in a query's document.

    Args:
        queries: Of one piece of a row.
        keys: Of a piece that all of it comes before; of the same piece, with `causal`.
        causal: Whether a query sees no key after its own place.
    """

    def some_rows(piece: tuple[Array, Queries]) -> Mixed:
        first, (q, ids) = piece
        seen = _visible(ids, keys.ids, first, causal)
        scores = jnp.where(seen, _einsum("BRKGH,BSKH->BRKGS", q, keys.k), MASKED)
        top = jnp.max(scores, axis=-1, keepdims=True)
        weights = jnp.exp(scores - top)
        total = jnp.sum(weights, axis=-1, keepdims=True)
        values = _einsum("BRKGS,BSKH->BRKGH", weights.astype(keys.v.dtype), keys.v) / total
        return Mixed(values, (top + jnp.log(total))[..., 0])

    return _together(jax.lax.map(some_rows, _in_pieces(queries)))


def block_gradients(
    queries: Queries, keys: Keys, upstream: Upstream, *, causal: bool = False
) -> tuple[Float[Array, "B R K G H"], tuple[Float[Array, "B S K H"], Float[Array, "B S K H"]]]:
    """What the block adds, in float32, to the gradients of its queries, keys and values."""

    def some_rows(sums: tuple[Array, Array], piece: Any) -> tuple[tuple[Array, Array], Array]:
        first, ((q, ids), (d_mixed, log_sums, along)) = piece
        scores = _einsum("BRKGH,BSKH->BRKGS", q, keys.k)
        weights = jnp.exp(scores - log_sums[..., None])
        weights = jnp.where(_visible(ids, keys.ids, first, causal), weights, 0)
        d_weights = _einsum("BRKGH,BSKH->BRKGS", d_mixed, keys.v)
        d_scores = (weights * (d_weights - along[..., None])).astype(q.dtype)
        d_k, d_v = sums
        d_k += _einsum("BRKGS,BRKGH->BSKH", d_scores, q)
        d_v += _einsum("BRKGS,BRKGH->BSKH", weights.astype(q.dtype), d_mixed)
        return (d_k, d_v), _einsum("BRKGS,BSKH->BRKGH", d_scores, keys.k)

    none = jnp.zeros(keys.k.shape, jnp.float32)
    d_kv, d_q = jax.lax.scan(some_rows, (none, none), _in_pieces((queries, upstream)))
    return _together(d_q), d_kv


def merge(one: Mixed, other: Mixed) -> Mixed:
    """The mix over the keys of both."""
    log_sums = jnp.logaddexp(one.log_sums, other.log_sums)
    parts = (m.values * jnp.exp(m.log_sums - log_sums)[..., None] for m in (one, other))
    return Mixed(sum(parts, jnp.zeros(())), log_sums)


def _visible(
    ids: Int[Array, "B R"], kv_ids: Int[Array, "B S"], first: Int[Array, ""], causal: bool
) -> Bool[Array, "B R 1 1 S"]:
    seen = ids[:, :, None] == kv_ids[:, None, :]
    if causal:
        seen &= first + jnp.arange(ids.shape[1])[:, None] >= jnp.arange(kv_ids.shape[1])
    return seen[:, :, None, None]


def _in_pieces(tree: Any) -> tuple[Int[Array, "C"], Any]:
    """Cuts the rows of each array, and says where each cut begins."""
    num_rows = jax.tree.leaves(tree)[0].shape[1]
    size = ROWS if num_rows % ROWS == 0 else num_rows

    def cut(x: Array) -> Array:
        return jnp.moveaxis(x.reshape(x.shape[0], -1, size, *x.shape[2:]), 1, 0)

    return jnp.arange(0, num_rows, size), jax.tree.map(cut, tree)


def _together(tree: Any) -> Any:
    """Undoes the cuts."""

    def join(x: Array) -> Array:
        return jnp.moveaxis(x, 0, 1).reshape(x.shape[1], -1, *x.shape[3:])

    return jax.tree.map(join, tree)


def _einsum(letters: str, a: Array, b: Array) -> Array:
    return jnp.einsum(letters, a, b, preferred_element_type=jnp.float32)
