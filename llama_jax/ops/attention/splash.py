"""Splash attention: the block-sparse Pallas kernel for TPUs."""

import functools
import math
from typing import Any

import jax
from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_kernel as kernels,
)
from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_mask as masks,
)
from jax.sharding import NamedSharding
from jaxtyping import Array, Float, Int

from llama_jax.config import KernelTiles
from llama_jax.config.tiles import LANES
from llama_jax.ops.attention.sums import add_up
from llama_jax.sharding import num_shards, partition_spec


def attend_splash(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B S K H"],
    v: Float[Array, "B S K H"],
    q_segments: Int[Array, "B T"],
    kv_segments: Int[Array, "B S"],
    *,
    tiles: KernelTiles = KernelTiles(),
    interpret: bool = False,
) -> Float[Array, "B T N H"]:
    """Attention that skips the blocks above the diagonal and shares keys within a group.

    Each device runs the kernel on its own rows, heads and queries; keys are whole along the row.
    The output and the log-sum-exp that the backward pass needs carry the checkpoint name
    "attention", so that a remat policy which saves them runs the forward kernel once.

    Args:
        q: Queries.
        k: Keys.
        v: Values.
        q_segments: Document of each query.
        kv_segments: Document of each key.
        tiles: In which the kernel works.
        interpret: Whether to run the kernel in Python, to test it without a TPU.

    Raises:
        ValueError: If the queries that a device holds are not a multiple of 128.
    """
    kernel = _kernel(q.shape[1], q.shape[2], tiles, interpret)
    q_spec = partition_spec("batch", "act_heads", "seq", None)
    kv_spec = partition_spec("batch", "act_kv_heads", None, None)
    # The kernel asks a mesh for shapes alone, and takes none that is part of a shard_map already.
    mesh = jax.sharding.get_abstract_mesh()
    mesh = jax.sharding.AbstractMesh(mesh.axis_sizes, mesh.axis_names)
    kernel_spec = kernel.manual_sharding_spec(
        NamedSharding(mesh, partition_spec("act_heads", "seq"))
    )

    @functools.partial(
        jax.shard_map,
        in_specs=(
            kernel_spec,
            q_spec,
            kv_spec,
            kv_spec,
            partition_spec("batch", "seq"),
            partition_spec("batch", None),
        ),
        out_specs=q_spec,
        check_vma=False,
    )
    def run(kernel: Any, q: Array, k: Array, v: Array, q_ids: Array, kv_ids: Array) -> Array:
        return _attend(kernel, q, k, v, kernels.SegmentIds(q_ids, kv_ids))

    q = (q * (1 / math.sqrt(q.shape[-1]))).swapaxes(1, 2)
    mixed = run(kernel, q, k.swapaxes(1, 2), v.swapaxes(1, 2), q_segments, kv_segments)
    return mixed.swapaxes(1, 2)


@jax.custom_vjp
def _attend(
    kernel: Any, q: Array, k: Array, v: Array, ids: kernels.SegmentIds
) -> Float[Array, "B N T H"]:
    return jax.vmap(kernel)(q, k, v, ids)


def _keep_gradient(
    kernel: Any, q: Array, k: Array, v: Array, ids: kernels.SegmentIds
) -> tuple[Array, Any]:
    return jax.vjp(lambda q, k, v: jax.vmap(kernel)(q, k, v, ids), q, k, v)


def _gradient(gradient: Any, d_mixed: Array) -> tuple[Any, ...]:
    return None, *add_up(gradient)(d_mixed), None


_attend.defvjp(_keep_gradient, _gradient)


def _kernel(
    seq_len: int, num_heads: int, tiles: KernelTiles, interpret: bool
) -> kernels.SplashAttentionKernel:
    per_device = seq_len // num_shards("seq")
    if per_device % LANES:
        raise ValueError(
            f"compute.attention='splash' needs a multiple of {LANES} queries a device, "
            f"got {per_device}; change data.seq_len, or use compute.attention='xla'."
        )
    keys, keys_backward = _fitting(tiles.keys, seq_len), _fitting(tiles.keys_backward, seq_len)
    return kernels.make_splash_mha(
        masks.MultiHeadMask([masks.CausalMask((seq_len, seq_len))] * num_heads),
        block_sizes=kernels.BlockSizes(
            block_q=_fitting(tiles.queries, per_device),
            block_kv=keys,
            block_kv_compute=_fitting(tiles.keys_at_once, keys),
            block_q_dkv=_fitting(tiles.queries_backward, per_device),
            block_kv_dkv=keys_backward,
            block_kv_dkv_compute=_fitting(tiles.keys_at_once, keys_backward),
            use_fused_bwd_kernel=True,
        ),
        head_shards=num_shards("act_heads"),
        q_seq_shards=num_shards("seq"),
        residual_checkpoint_name="attention",
        interpret=interpret,
    )


def _fitting(tile: int, length: int) -> int:
    """The tile, or where it does not divide `length`, the largest that does and is smaller."""
    return next(size for size in range(min(tile, length), 0, -LANES) if length % size == 0)
