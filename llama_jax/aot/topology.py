"""Devices of a pod that is not here, for programs to be compiled for."""

import contextlib
import importlib.util
import math
import os
from collections.abc import Iterator
from typing import Any

from llama_jax.aot.gpu_targets import GPU_TARGETS
from llama_jax.hardware import GPUS_A_NODE, Pod

# libtpu asks the machine what it is; these answer, for a machine that is none of its own.
_LIBTPU_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5p-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # else a second compilation dies on the first one's lock
}


def prepare_environment() -> None:
    """Keeps JAX on the CPU and libtpu from looking for a TPU; before the first use of JAX."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    for name, value in _LIBTPU_ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def devices_of(pod: Pod, num_slices: int = 1) -> list[Any]:
    """JAX's devices of `num_slices` pods; a program can be compiled for them, and not run.

    Raises:
        ValueError: If the pod is of no kind that can be described here, or a library is missing.
    """
    if not pod.topology:
        return _gpus(pod, num_slices)
    if importlib.util.find_spec("libtpu") is None:
        raise ValueError(
            f"--topology={pod.chip.name}:{pod.topology} needs libtpu, the compiler of TPUs: "
            "pip install 'llama-jax[tpu]'. It needs no TPU."
        )
    from jax.experimental import topologies

    options: dict[str, Any] = {} if num_slices == 1 else {"num_slices": num_slices}
    if pod.chip.name == "v4":
        options["chip_config_name"] = "megacore"  # one device a chip, as Cloud TPUs show it
    if pod.count == 1:
        options["chips_per_host_bounds"] = (1, 1, 1)  # libtpu's default is a host of four
    with _quiet_stderr():
        found = topologies.get_topology_desc(
            f"{pod.chip.name}:{pod.topology}", platform="tpu", **options
        )
    return list(found.devices)


def _gpus(pod: Pod, num_slices: int) -> list[Any]:
    name = pod.chip.name
    if name not in GPU_TARGETS:
        raise ValueError(
            f"--topology={name}:{pod.count}: TPUs are compiled for by their grid of chips "
            f"(v5p:4x4x8, v5e:16x16), GPUs by their number; GPUs are {', '.join(GPU_TARGETS)}."
        )
    if num_slices != 1:
        raise ValueError(f"--slices={num_slices}: GPUs have no slices; give {name} their number.")
    if importlib.util.find_spec("jax_cuda12_plugin") is None:
        raise ValueError(
            f"--topology={name}:{pod.count} needs JAX's CUDA plugin, with the compiler of GPUs: "
            "pip install 'llama-jax[cuda]' (5.5 GB). It needs no GPU."
        )
    from jax.experimental import topologies

    found = topologies.get_topology_desc(
        name,
        platform="cuda",
        target_config=GPU_TARGETS[name],
        topology=f"1x{math.ceil(pod.count / GPUS_A_NODE)}x{min(pod.count, GPUS_A_NODE)}",
    )
    return list(found.devices)


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Keeps what libtpu says of a machine without TPUs, in C, from people."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
