"""LLaMA as Flax NNX modules."""

from llama_jax.model.init import abstract_params, init_params
from llama_jax.model.llama import KVCache, Llama, init_cache, resolve_dtype

__all__ = [
    "KVCache",
    "Llama",
    "abstract_params",
    "init_cache",
    "init_params",
    "resolve_dtype",
]
