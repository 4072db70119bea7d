"""What one step of a compiled program does on one device; see docs/compiled_programs.md."""

import dataclasses
import itertools
import re
from collections.abc import Iterator, Mapping

from llama_jax.aot.collectives import Collective, collectives_of
from llama_jax.aot.costs import RUN_OTHERS, Cost, Costs, branch_taken, computation_costs
from llama_jax.aot.groups import layout_of
from llama_jax.aot.hlo import Computation, Instruction, Module, parse_module
from llama_jax.aot.kernels import Kernel, is_kernel, kernel_flops, kernel_name
from llama_jax.aot.loops import counted, trip_counts
from llama_jax.aot.shapes import Matmul, Result, largest_results, matmuls_of
from llama_jax.aot.transfers import Transfer, transfers_of


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """One instruction that takes cycles.

    Attributes:
        name: To be found in the text.
        opcode: "copy" for what only changes a layout, "fusion" for most of the rest.
        where: In the traced function.
        count: Executions of a step.
        cost: Of all of them together.
    """

    name: str
    opcode: str
    where: str
    count: int
    cost: Cost


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Program:
    """Totals of a step, per device, loops counted as often as they run.

    Attributes:
        cycles: That the compiler estimates, without kernels and collectives.
        matmul_flops: Of dots and convolutions; kernels have their own.
        hbm_bytes: Read and written, without kernels and collectives.
        kernels: Each with all its launches.
        collectives: In the order of the text.
        transfers: To and from the memory of the host.
        matmuls: Of TPUs, with their shapes.
        results: The largest that are left in memory, one of each shape, most first.
        work: Instructions by their cycles, most first; together they make `cycles`.
        doubts: Sentences on what could not be read, and how it was counted.
    """

    cycles: int
    matmul_flops: float
    hbm_bytes: int
    kernels: tuple[Kernel, ...]
    collectives: tuple[Collective, ...]
    transfers: tuple[Transfer, ...]
    matmuls: tuple[Matmul, ...]
    results: tuple[Result, ...]
    work: tuple[Work, ...]
    doubts: tuple[str, ...]


def read_program(text: str, mesh_shape: Mapping[str, int]) -> Program:
    """Reads the text of a compiled step.

    Args:
        text: Of `jax.stages.Compiled.as_text()`.
        mesh_shape: Sizes of the mesh's axes by name, in the mesh's order.

    Raises:
        ValueError: If the text is no compiled program, or is one of another mesh.
    """
    module = parse_module(text)
    layout = layout_of(mesh_shape, _num_partitions(text))
    trips = trip_counts(module)
    costs = computation_costs(module, trips)
    counts = _executions(module, trips, costs)
    scheduled = [one for one in module.computations.values() if counts.get(one.name)]
    total = costs.totals[module.entry.name]
    return Program(
        cycles=total.cycles,
        matmul_flops=total.matmul_flops,
        hbm_bytes=total.hbm_bytes,
        kernels=_kernels(module, counts),
        collectives=tuple(
            collective
            for one in scheduled
            for collective in collectives_of(
                module, one, costs.steps[one.name], counts[one.name], layout
            )
        ),
        transfers=tuple(
            transfer
            for one in scheduled
            for transfer in transfers_of(one, costs.steps[one.name], counts[one.name])
        ),
        matmuls=tuple(matmuls_of(module, counts)),
        results=largest_results(module, counts),
        work=_work(module, counts, costs),
        doubts=tuple(_doubts(scheduled, trips, module)),
    )


def _num_partitions(text: str) -> int | None:
    stated = re.search(r"\bnum_partitions=(\d+)", text.partition("\n")[0])
    return int(stated[1]) if stated else None


def _executions(module: Module, trips: Mapping[str, int | None], costs: Costs) -> dict[str, int]:
    """How often a step runs each computation of the schedule.

    Insides of fusions and of asynchronous calls are not of it.
    """
    counts = {module.entry.name: 1}
    # Callers stand after what they call, so a count is whole before it is handed on.
    for computation in reversed(module.computations.values()):
        for instruction in computation if computation.name in counts else ():
            for called, times in _runs(module, instruction, trips, costs):
                more = counts[computation.name] * times
                counts[called.name] = counts.get(called.name, 0) + more
    return counts


def _runs(
    module: Module, instruction: Instruction, trips: Mapping[str, int | None], costs: Costs
) -> Iterator[tuple[Computation, int]]:
    """Computations that an instruction runs, each with how often."""
    if instruction.opcode == "while":
        (body,) = module.called(instruction, "body")
        yield body, counted(trips[body.name])
    elif instruction.opcode == "conditional":
        yield branch_taken(module, instruction, costs.totals), 1
    elif instruction.opcode == "call":
        yield from ((called, 1) for called in module.called(instruction))


def _kernels(module: Module, counts: Mapping[str, int]) -> tuple[Kernel, ...]:
    launches = [
        Kernel(
            name=kernel_name(call),
            launches=count,
            flops=kernel_flops(module.computations[name], call) * count,
            bytes=(sum(one.bytes for one in operands) + call.bytes) * count,
        )
        for name, count in counts.items()
        for call in module.computations[name]
        if is_kernel(call)
        for operands in [module.computations[name].operand_arrays(call)]
    ]
    by_name = itertools.groupby(sorted(launches, key=lambda one: one.name), lambda one: one.name)
    return tuple(
        Kernel(
            name=name,
            launches=sum(one.launches for one in same),
            flops=sum(one.flops for one in same),
            bytes=sum(one.bytes for one in same),
        )
        for name, group in by_name
        for same in [list(group)]
    )


def _work(module: Module, counts: Mapping[str, int], costs: Costs) -> tuple[Work, ...]:
    work = [
        Work(
            name=instruction.name,
            opcode=instruction.opcode,
            where=instruction.op_name,
            count=count,
            cost=cost.times(count),
        )
        for name, count in counts.items()
        for instruction, cost in zip(module.computations[name], costs.steps[name], strict=True)
        if count and cost.cycles and instruction.opcode not in RUN_OTHERS
    ]
    return tuple(sorted(work, key=lambda one: -one.cost.cycles))


def _doubts(
    scheduled: list[Computation], trips: Mapping[str, int | None], module: Module
) -> Iterator[str]:
    for computation in scheduled:
        for instruction in computation:
            if instruction.opcode == "while":
                (body,) = module.called(instruction, "body")
                if trips[body.name] is None:
                    yield (
                        f"Line {instruction.line}: how often the loop {instruction.name} runs is "
                        "not written in the text; counted once."
                    )
            elif instruction.opcode == "conditional":
                yield (
                    f"Line {instruction.line}: which branch of {instruction.name} runs is decided "
                    "by data; the one that costs most was counted."
                )
            elif is_kernel(instruction) and not kernel_flops(computation, instruction):
                yield (
                    f"Line {instruction.line}: what {kernel_name(instruction)} computes is not "
                    "known; counted with 0 FLOPs."
                )
