"""How weights begin."""

import math

import jax
from flax import nnx

from llama_jax.config import ModelConfig

STDDEV = 0.02


def new_param(
    rngs: nnx.Rngs, shape: tuple[int, ...], axes: tuple[str, ...], *, stddev: float = STDDEV
) -> nnx.Param:
    """Normal float32 weights around zero, split over devices as their logical `axes` say."""
    return nnx.Param(stddev * jax.random.normal(rngs.params(), shape), out_sharding=axes)


def residual_stddev(config: ModelConfig) -> float:
    """Spread of the two matrices of a block that write to the residual stream.

    `2L` of them add up, so each is scaled by `1 / sqrt(2L)` to keep the variance of the sum
    independent of depth. The LLaMA papers do not say how weights begin; this is GPT-2's rule
    with a standard deviation of 0.02.

    Source: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners",
    section 2.3; with `2L` counted as in Megatron-LM (arXiv:1909.08053).
    """
    return STDDEV / math.sqrt(2 * config.num_layers)
