"""Flash attention of cuDNN, for NVIDIA GPUs."""

import functools

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

from llama_jax.sharding import partition_spec, platform

DTYPES = (jnp.bfloat16, jnp.float16)


def attend_cudnn(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B S K H"],
    v: Float[Array, "B S K H"],
    q_segments: Int[Array, "B T"],
    kv_segments: Int[Array, "B S"],
) -> Float[Array, "B T N H"]:
    """Fused attention whose documents are kept apart by a mask over query and key positions.

    Each device runs the kernel on its own rows and heads; keys and queries are whole along the
    row. The kernel could be split by the partitioner, but not where part of the mesh is ours
    already (`on_data_shards`): there its compilation fails (JAX 0.10).

    Raises:
        ValueError: If there is no GPU, or the dtype is not bfloat16 or float16.
    """
    if platform() not in ("gpu", "cuda"):
        raise ValueError(
            f"compute.attention='cudnn' needs an NVIDIA GPU, not {platform()}; use 'auto'."
        )
    if q.dtype not in DTYPES:
        raise ValueError(
            f"compute.attention='cudnn' needs compute.dtype='bfloat16', not {q.dtype}; "
            "use compute.attention='xla' for float32."
        )
    queries = partition_spec("batch", None, "act_heads", None)
    keys = partition_spec("batch", None, "act_kv_heads", None)
    ids = partition_spec("batch", None)

    @functools.partial(
        jax.shard_map, in_specs=(queries, keys, keys, ids, ids), out_specs=queries, check_vma=False
    )
    def run(q: Array, k: Array, v: Array, q_ids: Array, kv_ids: Array) -> Array:
        same_document = q_ids[:, None, :, None] == kv_ids[:, None, None, :]
        return jax.nn.dot_product_attention(
            q, k, v, mask=same_document, is_causal=True, implementation="cudnn"
        )

    return checkpoint_name(run(q, k, v, q_segments, kv_segments), "attention")
