"""Compiled programs, kept from one command to the next."""

import os

from llama_jax.cache import cache_folder


def enable_compilation_cache() -> None:
    """Keeps compiled programs for the next start, where `JAX_COMPILATION_CACHE_DIR` says.

    Without that variable they are kept in `llama_jax/xla` below `XDG_CACHE_HOME`, or `~/.cache`.
    """
    import jax

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder("xla")))
    # Small programs too: there are many of them, and on CPU each takes its time.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
