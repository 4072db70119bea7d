"""Attention in plain XLA: every platform has it, and the kernels are tested against it."""

import functools
import itertools
import math
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, Int

from llama_jax.sharding import num_shards

MASKED = -0.7 * float(jnp.finfo(jnp.float32).max)  # finite: a row of -inf would be NaN
MAX_BLOCKS = 4
MIN_BLOCK = 128


def attend_xla(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B S K H"],
    v: Float[Array, "B S K H"],
    q_segments: Int[Array, "B T"],
    kv_segments: Int[Array, "B S"],
    q_indices: Int[Array, "B T"] | None = None,
) -> Float[Array, "B T N H"]:
    """Grouped attention whose keys are shared, not repeated. Padding sees padding here.

    Where queries and keys are the same tokens, queries go in blocks that meet only the keys up
    to their own end, and the backward pass computes the weights again from the log-sum-exp. On a
    CPU, forward and backward, that is twice as fast as masking all the scores at T = 512.

    Source: the recomputation, Dao et al. 2022 (arXiv:2205.14135), algorithm 4.
    """
    B, T, N, H = q.shape
    K = k.shape[2]
    grouped = (q * (1 / math.sqrt(H))).reshape(B, T, K, N // K, H)
    if q_indices is None:
        mixed = _attend_in_blocks(grouped, k, v, q_segments, kv_segments)
    else:
        visible = q_indices[:, :, None] >= jnp.arange(k.shape[1])
        visible &= q_segments[:, :, None] == kv_segments[:, None, :]
        scores = _einsum("BTKGH,BSKH->BKGTS", grouped, k)
        scores = jnp.where(visible[:, None, None], scores, MASKED)
        weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
        mixed = _einsum("BKGTS,BSKH->BTKGH", weights, v)
    return mixed.reshape(B, T, N, H).astype(q.dtype)


def _blocks(seq_len: int) -> Iterator[tuple[slice, slice]]:
    """Slices of queries, and of the keys that some of them see."""
    # A row split over devices is left whole: a block would be the work of a few of them.
    whole = num_shards("seq") > 1
    size = seq_len if whole else max(MIN_BLOCK, math.ceil(seq_len / MAX_BLOCKS))
    for start in range(0, seq_len, size):
        end = min(start + size, seq_len)
        yield slice(start, end), slice(0, end)


def _forward(
    q: Float[Array, "B T K G H"],
    k: Float[Array, "B T K H"],
    v: Float[Array, "B T K H"],
    q_segments: Int[Array, "B T"],
    kv_segments: Int[Array, "B T"],
) -> tuple[Float[Array, "B T K G H"], Float[Array, "B K G T"]]:
    q_turned, k_turned = _channels_first(q), _channels_first(k)
    v_heads = v.swapaxes(1, 2)
    mixed, log_sums = [], []
    for rows, seen in _blocks(q.shape[1]):
        scores = _scores(q_turned[..., rows], k_turned[..., seen])
        scores = jnp.where(_visible(q_segments, kv_segments, rows, seen), scores, MASKED)
        top = jnp.max(scores, axis=-1, keepdims=True)
        weights = jnp.exp(scores - top)
        total = jnp.sum(weights, axis=-1, keepdims=True)
        mixed.append(_mix(weights.astype(v.dtype), v_heads[:, :, seen]) / total)
        log_sums.append((top + jnp.log(total))[..., 0])
    return jnp.moveaxis(jnp.concatenate(mixed, axis=3), 3, 1), jnp.concatenate(log_sums, axis=3)


@jax.custom_vjp
def _attend_in_blocks(
    q: Float[Array, "B T K G H"],
    k: Float[Array, "B T K H"],
    v: Float[Array, "B T K H"],
    q_segments: Int[Array, "B T"],
    kv_segments: Int[Array, "B T"],
) -> Float[Array, "B T K G H"]:
    return _forward(q, k, v, q_segments, kv_segments)[0].astype(q.dtype)


def _keep_for_backward(
    q: Array, k: Array, v: Array, q_segments: Array, kv_segments: Array
) -> tuple[Array, tuple[Array, ...]]:
    mixed, log_sums = _forward(q, k, v, q_segments, kv_segments)
    mixed = checkpoint_name(mixed.astype(q.dtype), "attention")
    log_sums = checkpoint_name(log_sums, "attention")
    return mixed, (q, k, v, q_segments, kv_segments, mixed, log_sums)


def _backward(kept: tuple[Array, ...], d_mixed: Array) -> tuple[Array | np.ndarray, ...]:
    q, k, v, q_segments, kv_segments, mixed, log_sums = kept
    k_heads = k.swapaxes(1, 2)
    q_turned, k_turned, v_turned = _channels_first(q), _channels_first(k), _channels_first(v)
    d_turned, mixed_turned = _channels_first(d_mixed), _channels_first(mixed)
    along = jnp.sum(d_turned.astype(jnp.float32) * mixed_turned.astype(jnp.float32), axis=-2)
    d_q, d_k, d_v = [], [], []
    for rows, seen in _blocks(q.shape[1]):
        scores = _scores(q_turned[..., rows], k_turned[..., seen])
        weights = jnp.exp(scores - log_sums[..., rows, None])
        weights = jnp.where(_visible(q_segments, kv_segments, rows, seen), weights, 0)
        d_weights = _scores(d_turned[..., rows], v_turned[..., seen])
        d_scores = (weights * (d_weights - along[..., rows, None])).astype(q.dtype)
        d_q.append(_mix(d_scores, k_heads[:, :, seen]))
        d_k.append(_spread(d_scores, q_turned[..., rows]))
        d_v.append(_spread(weights.astype(q.dtype), d_turned[..., rows]))
    none = np.zeros(q_segments.shape, jax.dtypes.float0)
    d_q = jnp.moveaxis(jnp.concatenate(d_q, axis=3), 3, 1).astype(q.dtype)
    return d_q, _add_up(d_k).astype(k.dtype), _add_up(d_v).astype(v.dtype), none, none


_attend_in_blocks.defvjp(_keep_for_backward, _backward)


def _visible(
    q_segments: Int[Array, "B T"], kv_segments: Int[Array, "B T"], rows: slice, seen: slice
) -> Bool[Array, "B 1 1 R S"]:
    causal = jnp.arange(rows.start, rows.stop)[:, None] >= jnp.arange(seen.stop)
    same_document = q_segments[:, rows, None] == kv_segments[:, None, seen]
    return (causal & same_document)[:, None, None]


# One matmul a key head in each: its queries, of all `G` heads that share it, are the rows. Which
# operand has its channels first, and that `_spread` does, spares XLA on CPU its copies of the
# square operand, which cost as much as the matmul.


def _scores(q: Float[Array, "B K G H R"], k: Float[Array, "B K H S"]) -> Array:
    """Of shape "B K G R S"."""
    B, K, G, H, R = q.shape
    scores = _einsum("BKHQ,BKHS->BKQS", jnp.moveaxis(q, 2, 3).reshape(B, K, H, G * R), k)
    return scores.reshape(B, K, G, R, -1)


def _mix(weights: Float[Array, "B K G R S"], v: Float[Array, "B K S H"]) -> Array:
    """Of shape "B K G R H"."""
    B, K, G, R, S = weights.shape
    return _einsum("BKQS,BKSH->BKQH", weights.reshape(B, K, G * R, S), v).reshape(B, K, G, R, -1)


def _spread(weights: Float[Array, "B K G R S"], q: Float[Array, "B K G H R"]) -> Array:
    """Of shape "B K H S"."""
    B, K, G, H, R = q.shape
    columns = jnp.moveaxis(q, 2, 3).reshape(B, K, H, G * R)
    return _einsum("BKQS,BKHQ->BKHS", weights.reshape(B, K, G * R, -1), columns)


def _add_up(parts: list[Float[Array, "B K H _"]]) -> Float[Array, "B T K H"]:
    """Sums what blocks of queries give to the keys that each has seen."""
    ends = [0, *(part.shape[-1] for part in parts)]
    sums = [
        functools.reduce(jnp.add, [part[..., start:end] for part in parts[block:]])
        for block, (start, end) in enumerate(itertools.pairwise(ends))
    ]
    return jnp.moveaxis(jnp.concatenate(sums, axis=-1), -1, 1)


def _channels_first(x: Float[Array, "B T *heads H"]) -> Float[Array, "B *heads H T"]:
    return jnp.moveaxis(x, 1, -1)


def _einsum(letters: str, a: Array, b: Array) -> Array:
    return jnp.einsum(letters, a, b, preferred_element_type=jnp.float32)
