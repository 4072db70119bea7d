"""Root-mean-square normalisation."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from llama_jax.config import ModelConfig


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
        return (wide * jax.lax.rsqrt(mean_square + self.eps) * self.scale[...]).astype(x.dtype)
