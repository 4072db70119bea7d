"""The linear maps of a block."""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from llama_jax.ops.quantized import project_quantized
from llama_jax.sharding import num_shards, platform


def project(
    x: Float[Array, "B T *into"], weight: Float[Array, "*into_and_out"], matmul: str = "dtype"
) -> Float[Array, "B T *out"]:
    """Contracts the axes of `x` behind "B T" with as many leading axes of `weight`.

    Args:
        x: Activations.
        weight: In the dtype of `x`.
        matmul: As `ComputeConfig.matmul` says.
    """
    if matmul != "dtype":
        return project_quantized(x, weight, matmul)
    num_axes = x.ndim - 2
    # Rows and tokens that devices split cannot become one axis, and a TPU would copy the rows.
    if num_shards("seq") > 1 or platform() != "cpu":
        return jnp.tensordot(x, weight, num_axes)
    # One plain matmul: in the gradient of one with more axes, XLA on CPU copies activations.
    B, T, *into = x.shape
    out = weight.shape[num_axes:]
    matrix = weight.reshape(math.prod(into), math.prod(out))
    return (x.reshape(B * T, math.prod(into)) @ matrix).reshape(B, T, *out)
