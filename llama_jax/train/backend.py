"""How XLA and the C library are told to make a step fast on CPU; docs/speed.md has the measures."""

import ctypes
import importlib.util
import sys
from collections.abc import Mapping
from importlib import metadata

import jax

# YNNPACK cuts one matmul for all cores with less loss than Eigen does, and reduces faster; its
# fusions of several operations are left out.
_CPU_OPTIONS = {
    "xla_cpu_experimental_ynn_fusion_type": (
        "LIBRARY_FUSION_TYPE_REDUCE,LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"
    )
}

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # malloc.h


def compiler_options(platform: str) -> dict[str, str] | None:
    """Options of `jax.jit` for the step.

    Args:
        platform: Of the devices that will run it, such as "cpu".
    """
    return _CPU_OPTIONS if platform == "cpu" and knows(_CPU_OPTIONS) else None


def knows(options: Mapping[str, str]) -> bool:
    """Whether this version of XLA has the options; they come and go between releases."""
    program = jax.jit(lambda: 0, compiler_options=dict(options))
    try:
        with jax.default_device(jax.local_devices(backend="cpu")[0]):
            program.lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True


def keep_freed_memory() -> None:
    """On a machine whose JAX has the CPU alone, keeps the memory of one step for the next.

    XLA frees a step's temporary arrays at its end. glibc would give them back to Linux, which
    then clears each page anew: a seventh of the step's time. In return the process keeps its
    peak. To be called before JAX starts its threads, for each would get an arena of its own.
    Other platforms and C libraries are left as they are.
    """
    if sys.platform == "linux" and _has_cpu_alone():
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # of glibc; musl has none
        if mallopt is not None:
            mallopt(_M_ARENA_MAX, 1)
            mallopt(_M_MMAP_MAX, 0)
            mallopt(_M_TRIM_THRESHOLD, -1)


def _has_cpu_alone() -> bool:
    # `jax.default_backend()` would know, and would start the threads.
    if platforms := jax.config.values["jax_platforms"]:
        return platforms == "cpu"
    plugins = metadata.entry_points(group="jax_plugins")
    return not plugins and importlib.util.find_spec("libtpu") is None
