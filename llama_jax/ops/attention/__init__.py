"""Causal attention within documents; one file a backend."""

import functools
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from llama_jax.config import KernelTiles
from llama_jax.ops.attention.all_to_all import Attend, attend_all_to_all
from llama_jax.ops.attention.cudnn import DTYPES, attend_cudnn
from llama_jax.ops.attention.ring import attend_ring
from llama_jax.ops.attention.splash import attend_splash
from llama_jax.ops.attention.xla import attend_xla
from llama_jax.sharding import constrain, num_shards, platform

Backend = Literal["auto", "xla", "splash", "cudnn"]
Context = Literal["gather", "all_to_all", "ring"]
KERNELS: dict[str, Attend] = {"xla": attend_xla, "splash": attend_splash, "cudnn": attend_cudnn}
BACKEND_OF_PLATFORM: dict[str, Backend] = {"tpu": "splash", "gpu": "cudnn", "cuda": "cudnn"}


def attend(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B S K H"],
    v: Float[Array, "B S K H"],
    *,
    q_segments: Int[Array, "B T"],
    kv_segments: Int[Array, "B S"],
    q_indices: Int[Array, "B T"] | None = None,
    backend: Backend = "auto",
    tiles: KernelTiles = KernelTiles(),
    context: Context = "gather",
) -> Float[Array, "B T N H"]:
    """Mixes the values of a token's predecessors in its own document.

    A query sees a key where the key's index in the row is not above its own and both carry the
    same segment. Segment 0 is padding: no token sees it, and its own output is zero, or on a TPU
    without meaning. What the
    backward pass needs beside queries, keys and values has the checkpoint name "attention".

    Args:
        q: Queries, rotated; head `n` shares key/value head `n // (N / K)`.
        k: Keys, rotated.
        v: Values.
        q_segments: Document of each query within its row.
        kv_segments: Document of each key within its row.
        q_indices: Place of each query among the keys; None where queries and keys are the same
            tokens. Only the XLA backend takes them: the kernels need a mask known in advance.
        backend: Kernel; "auto" is splash attention on TPU, cuDNN on GPU for 16 bits, and XLA
            elsewhere or where `q_indices` are given.
        tiles: Of splash attention.
        context: How queries meet all the keys before them where devices split a row: "gather"
            makes keys and values whole along it, "all_to_all" exchanges rows for heads, "ring"
            passes keys and values from device to device and mixes them without a kernel.

    Returns:
        In the dtype of `q`; softmax is computed in float32.

    Raises:
        ValueError: If the backend cannot compute this.
    """
    if backend == "auto":
        backend = BACKEND_OF_PLATFORM.get(platform(), "xla")
        if q_indices is not None or (backend == "cudnn" and q.dtype not in DTYPES):
            backend = "xla"
    if backend != "xla" and q_indices is not None:
        raise ValueError(
            f"compute.attention={backend!r} cannot attend to a cache; use 'auto' or 'xla'."
        )
    kernel = KERNELS[backend]
    if backend == "splash":
        kernel = functools.partial(attend_splash, tiles=tiles)
    if q_indices is not None:
        mixed = attend_xla(q, k, v, q_segments, kv_segments, q_indices)
    elif num_shards("seq") == 1:
        mixed = kernel(q, k, v, q_segments, kv_segments)
    elif context == "all_to_all":
        mixed = attend_all_to_all(kernel, q, k, v, q_segments)
    elif context == "ring":
        mixed = attend_ring(q, k, v, q_segments)
    else:
        k = constrain(k, "batch", None, "act_kv_heads", None)
        v = constrain(v, "batch", None, "act_kv_heads", None)
        mixed = kernel(q, k, v, q_segments, kv_segments)
    if platform() == "tpu":  # where this pass over the output would be a hundredth of a step
        return mixed.astype(q.dtype)
    return jnp.where((q_segments > 0)[..., None, None], mixed, 0).astype(q.dtype)
