"""Rotary position embedding, in the three forms that LLaMA models use."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from llama_jax.config import LinearRope, Llama3Rope, PlainRope, Rope
from llama_jax.sharding import platform


class Rotation(NamedTuple):
    """Cosine and sine of each token's angle in each plane; computed once, used by every layer."""

    cos: Float[Array, "B T half"]
    sin: Float[Array, "B T half"]


def rope_frequencies(rope: Rope, head_dim: int) -> Float[np.ndarray, "half"]:
    """Radians by which each plane of a head turns from one position to the next, in float32.

    Sources: Su et al. 2021 (arXiv:2104.09864), section 3.2.2; linear stretch, Chen et al. 2023
    (arXiv:2306.15595), section 2.2; the LLaMA-3.1 stretch, `apply_scaling` in Meta's
    llama-models (`models/llama3/model.py`), which no paper describes.
    """
    planes = np.arange(0, head_dim, 2, dtype=np.float64) / head_dim
    frequencies = rope.theta**-planes
    match rope:
        case PlainRope():
            pass
        case LinearRope(factor=factor):
            frequencies = frequencies / factor
        case Llama3Rope():
            frequencies = _stretch_long_wavelengths(frequencies, rope)
    return frequencies.astype(np.float32)


def rotation(positions: Int[Array, "B T"], frequencies: Float[np.ndarray, "half"]) -> Rotation:
    """Angles of tokens at `positions`, counted from the start of their document."""

    def turn(positions: Int[Array, " T"]) -> Rotation:
        angles = positions[:, None].astype(jnp.float32) * frequencies
        return Rotation(jnp.cos(angles), jnp.sin(angles))

    if platform() == "cpu":
        # In a loop of its own, XLA on CPU computes this once and not again in every layer.
        return jax.lax.map(turn, positions)
    return jax.vmap(turn)(positions)


def apply_rope(x: Float[Array, "B T N H"], turn: Rotation) -> Float[Array, "B T N H"]:
    """Rotates the planes (i, i + H/2) of each head, in float32; returns the dtype of `x`.

    This is the layout of Hugging Face's checkpoints. Meta's rotate the planes (2i, 2i + 1), which
    is the same function once the query and key weights are permuted.
    """
    cos, sin = turn.cos[:, :, None, :], turn.sin[:, :, None, :]
    if platform() == "tpu":
        cos = jnp.concatenate([cos, cos], axis=-1)
        sin = jnp.concatenate([-sin, sin], axis=-1)
        rotated = x.astype(jnp.float32) * cos + _swap_halves(x).astype(jnp.float32) * sin
        return rotated.astype(x.dtype)
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    rotated = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return rotated.astype(x.dtype)


def _swap_halves(x: Float[Array, "B T N H"]) -> Float[Array, "B T N H"]:
    """Exact, by a permutation matrix: halves of a TPU's lanes can only be sliced with copies."""
    identity = jnp.eye(x.shape[-1], dtype=x.dtype)
    return jnp.einsum("BTNH,HG->BTNG", x, jnp.roll(identity, x.shape[-1] // 2, axis=0))


def _stretch_long_wavelengths(
    frequencies: Float[np.ndarray, "half"], rope: Llama3Rope
) -> Float[np.ndarray, "half"]:
    wavelengths = 2 * math.pi / frequencies
    turns = rope.original_seq_len / wavelengths  # in the original context
    span = rope.high_freq_factor - rope.low_freq_factor
    kept = np.clip((turns - rope.low_freq_factor) / span, 0.0, 1.0)
    return kept * frequencies + (1 - kept) * frequencies / rope.factor
