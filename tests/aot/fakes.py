"""Programs as they could have been read, with as much in them as a test is about."""

import dataclasses

from llama_jax.aot.collectives import Collective
from llama_jax.aot.compile import MemoryUse
from llama_jax.aot.costs import Cost
from llama_jax.aot.hlo import Array
from llama_jax.aot.kernels import Kernel
from llama_jax.aot.machine import Machine
from llama_jax.aot.program import Program, Work
from llama_jax.aot.shapes import Result
from llama_jax.aot.transfers import Transfer
from llama_jax.hardware import parse_pod

GIB = 1 << 30


def machine(topology, *, slices=1, **axes):
    shape = dict.fromkeys(("replica", "fsdp", "context", "tensor"), 1) | axes
    return Machine(pod=parse_pod(topology), num_slices=slices, mesh_shape=shape)


def collective(
    kind="all-gather",
    *,
    axes=("fsdp",),
    size=128,
    gigabytes=1.0,
    count=80,
    exposure="overlapped",
    beside_cycles=10**12,
    stands_for="",
):
    return Collective(
        kind=kind,
        axes=axes,
        group_size=size,
        bytes=int(gigabytes * 1e9),
        count=count,
        exposure=exposure,
        overlap=Cost(cycles=0 if exposure == "exposed" else beside_cycles),
        stands_for=stands_for,
        where="",
        name="",
    )


def transfer(direction="to host", *, gigabytes=1.0, count=80, beside_cycles=0):
    return Transfer(
        direction=direction,
        bytes=int(gigabytes * 1e9),
        count=count,
        exposed=not beside_cycles,
        overlap=Cost(cycles=beside_cycles),
    )


def kernel(name="splash_mha_fwd", launches=80, flops=0.0):
    return Kernel(name=name, launches=launches, flops=flops, bytes=0)


def work(opcode, cycles):
    cost = Cost(cycles=int(cycles))
    return Work(name=opcode, opcode=opcode, where="layer", count=80, cost=cost)


def result(*dims, dtype="bf16"):
    return Result(Array(dtype, dims), "fusion.1", "layer")


def program(*, cycles=0, matmul_flops=0.0, hbm_bytes=0, **parts):
    nothing = {field.name: () for field in dataclasses.fields(Program)}
    totals = {"cycles": cycles, "matmul_flops": matmul_flops, "hbm_bytes": hbm_bytes}
    return Program(**nothing | totals | {name: tuple(part) for name, part in parts.items()})


def memory(arguments, peak):
    return MemoryUse(
        arguments=int(arguments * GIB),
        outputs=int(arguments * GIB),
        aliased=int(arguments * GIB),
        temporaries=int((peak - arguments) * GIB),
        code=0,
        peak=int(peak * GIB),
    )
