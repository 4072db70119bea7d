"""How XLA and the C library are told to make a step fast.

docs/speed.md has what the options of CPUs change, docs/pod_flags.md what those of TPUs change.
"""

import ctypes
import importlib.util
import sys
import warnings
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from llama_jax.hardware import find_accelerator

# YNNPACK cuts one matmul for all cores with less loss than Eigen does, and reduces faster; its
# fusions of several operations are left out.
_CPU_OPTIONS = {
    "xla_cpu_experimental_ynn_fusion_type": (
        "LIBRARY_FUSION_TYPE_REDUCE,LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"
    )
}

# Weights arrive whole, not in pieces that are multiplied as they come; while one is on its way,
# the matmul before it runs.
_TPU_OPTIONS = {
    "xla_jf_spmd_threshold_for_windowed_einsum_mib": "1000000",
    "xla_enable_async_all_gather": "true",
    "xla_tpu_enable_async_collective_fusion": "true",
    "xla_tpu_enable_async_collective_fusion_fuse_all_gather": "true",
    "xla_tpu_enable_async_collective_fusion_multiple_steps": "true",
    "xla_tpu_overlap_compute_collective_tc": "true",
}
# Gradients are scattered by SparseCores while matmuls go on.
_SPARSE_CORE_OPTIONS = {
    "xla_tpu_enable_sparse_core_collective_offload_reduce_scatter": "true",
    "xla_tpu_enable_reduce_scatter_offload_tracing": "true",
    "xla_tpu_enable_async_collective_fusion_fuse_reduce_scatter": "false",
    "xla_tpu_use_tc_device_shape_on_sc": "true",
    "xla_sc_enable_instruction_fusion": "false",
    "xla_sc_disable_megacore_partitioning": "true",
}
# Where there are none that could, sums run beside matmuls, for `compute.gradients=sum`.
_SUM_OPTIONS = {
    "xla_enable_async_all_reduce": "true",
    "xla_tpu_enable_async_collective_fusion_fuse_all_reduce": "true",
    "xla_tpu_enable_all_reduce_scatter_fusion": "false",
}
# KiB of on-chip memory that one fusion may fill: the tiles of matmuls grow with it.
_FUSION_MEMORY = {"v5e": 49152, "v5p": 49152, "v6e": 98304, "tpu7x": 49152}

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # malloc.h


def compiler_options(device: Any) -> dict[str, str] | None:
    """Options of `jax.jit` for the step, those that this compiler has.

    Args:
        device: One of those that will run it, present or not; of this process, if there are more.
    """
    if device.platform == "cpu":
        return _CPU_OPTIONS if knows(_CPU_OPTIONS, device) else None
    if device.platform != "tpu":
        return None
    options = _TPU_OPTIONS | _options_of_chip(device)
    if knows(options, device):
        return options
    known = {name: value for name, value in options.items() if knows({name: value}, device)}
    dropped = ", ".join(options.keys() - known.keys())
    warnings.warn(
        f"This libtpu has no {dropped}: the step will be slower than docs/pods says.", stacklevel=2
    )
    return known


def _options_of_chip(device: Any) -> dict[str, str]:
    chip = find_accelerator(device.device_kind)
    if chip is None:
        return {}
    options = _SPARSE_CORE_OPTIONS if chip.scatters_aside else _SUM_OPTIONS
    memory = _FUSION_MEMORY.get(chip.name)
    return options | ({} if memory is None else {"xla_tpu_scoped_vmem_limit_kib": str(memory)})


def knows(options: Mapping[str, str], device: Any) -> bool:
    """Whether the compiler for a device has the options; they come and go between releases."""
    mesh = Mesh(np.array([device]), ("alone",))
    nothing = jax.ShapeDtypeStruct((), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec()))
    program = jax.jit(lambda x: x, compiler_options=dict(options))
    try:
        with jax.set_mesh(mesh):
            program.lower(nothing).compile()
    except jax.errors.JaxRuntimeError as error:
        # Whatever else it says, it will say of the step too, and there it is to be heard.
        return "compile option" not in str(error)
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
