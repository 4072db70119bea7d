"""Root-mean-square normalisation."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from llama_jax.config import ModelConfig
from llama_jax.sharding import platform


class RMSNorm(nnx.Module):
    """Scales each token's vector to unit mean square, then each channel by a learned factor.

    Source: Zhang and Sennrich 2019 (arXiv:1910.07467), equation 4.
    """

    def __init__(self, config: ModelConfig):
        self.scale = nnx.Param(jnp.ones(config.embed_dim), out_sharding=("norm",))
        self.eps = config.norm_eps

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Normalises in float32 and returns the dtype of `x`."""
        wide = x.astype(jnp.float32)
        mean_square = jnp.mean(jnp.square(wide), axis=-1, keepdims=True)
        scaled = (wide * jax.lax.rsqrt(mean_square + self.eps) * self.scale[...]).astype(x.dtype)
        return _apart(scaled) if platform() == "tpu" else scaled


@jax.custom_vjp
def _apart(x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
    """Itself, with a gradient that is finished before the norm's is begun.

    XLA for TPUs would compute the norm's gradient, and its sums over tokens and channels, within
    the matmul that this gradient comes from, which then takes twice as long.
    """
    return x


def _keep_nothing(x: Float[Array, "B T D"]) -> tuple[Array, None]:
    return x, None


def _finish(_: None, d_x: Float[Array, "B T D"]) -> tuple[Array]:
    return (jax.lax.optimization_barrier(d_x),)


_apart.defvjp(_keep_nothing, _finish)
