"""Flash attention of cuDNN, for NVIDIA GPUs."""

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

from llama_jax.sharding import platform


def attend_cudnn(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B S K H"],
    v: Float[Array, "B S K H"],
    q_segments: Int[Array, "B T"],
    kv_segments: Int[Array, "B S"],
) -> Float[Array, "B T N H"]:
    """Fused attention whose documents are kept apart by a mask over query and key positions.

    Raises:
        ValueError: If there is no GPU, or the dtype is not bfloat16 or float16.
    """
    if platform() not in ("gpu", "cuda"):
        raise ValueError(
            f"compute.attention='cudnn' needs an NVIDIA GPU, not {platform()}; use 'auto'."
        )
    if q.dtype not in (jnp.bfloat16, jnp.float16):
        raise ValueError(
            f"compute.attention='cudnn' needs compute.dtype='bfloat16', not {q.dtype}; "
            "use compute.attention='xla' for float32."
        )
    same_document = q_segments[:, None, :, None] == kv_segments[:, None, None, :]
    mixed = jax.nn.dot_product_attention(
        q, k, v, mask=same_document, is_causal=True, implementation="cudnn"
    )
    return checkpoint_name(mixed, "attention")
