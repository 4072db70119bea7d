"""Attention in plain XLA: every platform has it, and the kernels are tested against it."""

import math
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

from llama_jax.sharding import num_shards

MASKED = -0.7 * float(jnp.finfo(jnp.float32).max)  # finite: a row of -inf would be NaN
MAX_BLOCKS = 8
MIN_BLOCK = 64


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
    grouped = (q * (1 / math.sqrt(H))).reshape(B, T, K, N // K, H).transpose(0, 2, 3, 1, 4)
    k, v = k.swapaxes(1, 2), v.swapaxes(1, 2)
    if q_indices is None:
        mixed = _attend_in_blocks(grouped, k, v, q_segments, kv_segments)
    else:
        visible = q_indices[:, :, None] >= jnp.arange(k.shape[2])
        visible &= q_segments[:, :, None] == kv_segments[:, None, :]
        scores = jnp.where(visible[:, None, None], _scores(grouped, k), MASKED)
        mixed = _mix(jax.nn.softmax(scores, axis=-1), v)
    return mixed.transpose(0, 3, 1, 2, 4).reshape(B, T, N, H).astype(q.dtype)


def _blocks(seq_len: int) -> Iterator[tuple[slice, slice]]:
    """Slices of queries, and of the keys that some of them see."""
    # A row split over devices is left whole: a block would be the work of a few of them.
    whole = num_shards("seq") > 1
    size = seq_len if whole else max(MIN_BLOCK, math.ceil(seq_len / MAX_BLOCKS))
    for start in range(0, seq_len, size):
        end = min(start + size, seq_len)
        yield slice(start, end), slice(0, end)


def _forward(
    q: Float[Array, "B K G T H"],
    k: Float[Array, "B K T H"],
    v: Float[Array, "B K T H"],
    q_segments: Int[Array, "B T"],
    kv_segments: Int[Array, "B T"],
) -> tuple[Float[Array, "B K G T H"], Float[Array, "B K G T 1"]]:
    mixed, log_sums = [], []
    for rows, seen in _blocks(q.shape[3]):
        scores = _masked_scores(q, k, q_segments, kv_segments, rows, seen)
        top = jnp.max(scores, axis=-1, keepdims=True)
        weights = jnp.exp(scores - top)
        total = jnp.sum(weights, axis=-1, keepdims=True)
        mixed.append(_mix(weights, v[:, :, seen]) / total)
        log_sums.append(top + jnp.log(total))
    return jnp.concatenate(mixed, axis=3), jnp.concatenate(log_sums, axis=3)


@jax.custom_vjp
def _attend_in_blocks(
    q: Float[Array, "B K G T H"],
    k: Float[Array, "B K T H"],
    v: Float[Array, "B K T H"],
    q_segments: Int[Array, "B T"],
    kv_segments: Int[Array, "B T"],
) -> Float[Array, "B K G T H"]:
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
    wide = jnp.float32
    along = jnp.sum(d_mixed.astype(wide) * mixed.astype(wide), axis=-1, keepdims=True)
    d_q = []
    d_k, d_v = jnp.zeros(k.shape, wide), jnp.zeros(v.shape, wide)
    for rows, seen in _blocks(q.shape[3]):
        scores = _masked_scores(q, k, q_segments, kv_segments, rows, seen)
        weights = jnp.exp(scores - log_sums[:, :, :, rows])
        d_weights = _scores(d_mixed[:, :, :, rows], v[:, :, seen])
        d_scores = weights * (d_weights - along[:, :, :, rows])
        d_q.append(_mix(d_scores, k[:, :, seen]))
        d_k = d_k.at[:, :, seen].add(_spread(d_scores, q[:, :, :, rows]))
        d_v = d_v.at[:, :, seen].add(_spread(weights, d_mixed[:, :, :, rows]))
    none = np.zeros(q_segments.shape, jax.dtypes.float0)
    d_q = jnp.concatenate(d_q, axis=3).astype(q.dtype)
    return d_q, d_k.astype(k.dtype), d_v.astype(v.dtype), none, none


_attend_in_blocks.defvjp(_keep_for_backward, _backward)


def _masked_scores(
    q: Array, k: Array, q_segments: Array, kv_segments: Array, rows: slice, seen: slice
) -> Float[Array, "B K G R S"]:
    visible = jnp.arange(rows.start, rows.stop)[:, None] >= jnp.arange(seen.stop)
    visible = visible & (q_segments[:, rows, None] == kv_segments[:, None, seen])
    scores = _scores(q[:, :, :, rows], k[:, :, seen])
    return jnp.where(visible[:, None, None], scores, MASKED)


def _scores(q: Float[Array, "B K G R H"], k: Float[Array, "B K S H"]) -> Float[Array, "B K G R S"]:
    return jnp.einsum("BKGRH,BKSH->BKGRS", q, k, preferred_element_type=jnp.float32)


def _mix(weights: Float[Array, "B K G R S"], v: Float[Array, "B K S H"]) -> Array:
    weights = weights.astype(v.dtype)
    return jnp.einsum("BKGRS,BKSH->BKGRH", weights, v, preferred_element_type=jnp.float32)


def _spread(weights: Float[Array, "B K G R S"], q: Float[Array, "B K G R H"]) -> Array:
    weights = weights.astype(q.dtype)
    return jnp.einsum("BKGRS,BKGRH->BKSH", weights, q, preferred_element_type=jnp.float32)
