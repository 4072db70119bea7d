"""Matmul FLOPs that a step needs, counted from the config, beside those of its program."""

from collections.abc import Collection

from llama_jax.aot.kernels import Kernel
from llama_jax.config import RunConfig
from llama_jax.flops import attention_flops_per_token, matmul_params


def matmul_flops_of_model(config: RunConfig, kernels: Collection[Kernel]) -> float:
    """Of all devices and a step, forward and backward, without anything that is computed again.

    Where no kernel computes attention (a ring of keys and values, or plain XLA), its scores and
    mixing are matmuls of the program, and count here as if no mask left any out.
    """
    forward = 2.0 * matmul_params(config.model)
    if not any(kernel.flops for kernel in kernels):
        forward += attention_flops_per_token(config.model, config.data.seq_len, "full")
    return 3.0 * forward * config.train.batch_size * config.data.seq_len
