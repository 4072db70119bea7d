"""Attention in plain XLA: every backend has it, and the others are tested against it."""

import math

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, Int

MASKED = -0.7 * float(jnp.finfo(jnp.float32).max)  # finite: a row of -inf would be NaN


def attend_xla(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B S K H"],
    v: Float[Array, "B S K H"],
    q_segments: Int[Array, "B T"],
    kv_segments: Int[Array, "B S"],
    q_indices: Int[Array, "B T"] | None = None,
) -> Float[Array, "B T N H"]:
    """Grouped attention whose keys are shared, not repeated. Padding sees padding here."""
    if q_indices is None:
        q_indices = jnp.arange(q.shape[1])[None]
    visible = q_indices[:, :, None] >= jnp.arange(k.shape[1])
    visible &= q_segments[:, :, None] == kv_segments[:, None, :]
    return checkpoint_name(_dense(q, k, v, visible), "attention")


def _dense(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B S K H"],
    v: Float[Array, "B S K H"],
    visible: Bool[Array, "B T S"],
) -> Float[Array, "B T N H"]:
    B, T, N, H = q.shape
    K = k.shape[2]
    grouped = (q * (1 / math.sqrt(H))).reshape(B, T, K, N // K, H)
    scores = jnp.einsum("BTKGH,BSKH->BKGTS", grouped, k, preferred_element_type=jnp.float32)
    scores = jnp.where(visible[:, None, None], scores, MASKED)
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    return jnp.einsum("BKGTS,BSKH->BTKGH", weights, v).reshape(B, T, N, H)
