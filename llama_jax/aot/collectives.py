"""Collectives of a compiled program: what they move, along which axes, and what hides them."""

import dataclasses
import itertools
import re
from collections.abc import Iterator, Sequence
from typing import Literal

from llama_jax.aot.costs import COLLECTIVES, Cost
from llama_jax.aot.disguises import is_sliced, is_zero_padded
from llama_jax.aot.groups import Layout, group_across_slices, group_of
from llama_jax.aot.hlo import ASYNCHRONOUS_CALLS, Computation, Instruction, Module, reading
from llama_jax.aot.kernels import target

# Collectives between slices are handed to the host, which knows the data-centre network.
_BETWEEN_SLICES = re.compile(r'_xla_megascale_transfer_type="(\w+)"')
Exposure = Literal["exposed", "overlapped", "fused"]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Collective:
    """One collective of the text, with all its executions of a step.

    Attributes:
        kind: As XLA calls it, without "-start"; "reduce-scatter" for XLA's fusion of an
            all-reduce with the slice that each device keeps.
        axes: Of the mesh, along which data moves.
        group_size: Devices that exchange data with one another.
        bytes: Of the output on one device, all executions of a step together.
        count: Executions of a step.
        exposure: "exposed" if the device waits for it, "overlapped" if other work is scheduled
            between its start and its end, "fused" if a matmul runs in the same fusion.
        overlap: That work, all executions of a step together. Two collectives under way at one
            time count the same work each.
        stands_for: What it would be if the partitioner had seen it: "all-gather" for an
            all-reduce of a buffer that is zero but for the device's own part, "reduce-scatter"
            for an all-reduce of which each device keeps a slice; else empty.
        where: In the traced function.
        name: Of the instruction, to be found in the text.
    """

    kind: str
    axes: tuple[str, ...]
    group_size: int
    bytes: int
    count: int
    exposure: Exposure
    overlap: Cost
    stands_for: str
    where: str
    name: str

    @property
    def sent_bytes(self) -> float:
        """What a device sends at least, all executions of a step together, along a ring."""
        if self.group_size == 1:
            return 0.0  # a permutation that leaves all where they are
        others = (self.group_size - 1) / self.group_size
        match self.kind:
            case "all-reduce":
                return 2 * others * self.bytes
            case "reduce-scatter":
                return (self.group_size - 1) * float(self.bytes)
            case "collective-permute":
                return float(self.bytes)
            case _:
                return others * self.bytes


@dataclasses.dataclass(frozen=True, slots=True)
class _Part:
    """One place of a schedule at which a collective starts, goes on or ends."""

    at: int
    inside: Computation
    collective: Instruction
    launch: Instruction  # the collective itself, or what runs it


def collectives_of(
    module: Module,
    computation: Computation,
    steps: Sequence[Cost],
    count: int,
    layout: Layout,
) -> Iterator[Collective]:
    """Collectives that a scheduled computation runs itself, not those of loops in it.

    Args:
        module: The program.
        computation: Whose instructions run one after another.
        steps: What each of them costs.
        count: Executions of the computation in a step.
        layout: Of the mesh; devices are numbered in its order.
    """
    before = list(itertools.accumulate(steps, initial=Cost()))
    for chain in _chains(module, computation):
        first, last = chain[0], chain[-1]
        with reading(first.collective):
            overlap = before[last.at + 1] + before[first.at].times(-1)
            exposure = _exposure(chain, steps, overlap)
            kind, output = _kind_and_output(chain)
            if first.collective.opcode == "send":
                group = group_across_slices(layout)
            else:
                group = group_of(first.collective, layout.inside)
            yield Collective(
                kind=kind,
                axes=group.axes,
                group_size=group.size,
                bytes=output * count,
                count=count,
                exposure=exposure,
                overlap=Cost() if exposure == "exposed" else overlap.times(count),
                stands_for=_stands_for(module, computation, chain) if kind == "all-reduce" else "",
                where=first.collective.op_name or first.launch.op_name,
                name=first.launch.name,
            )


def _exposure(chain: Sequence[_Part], steps: Sequence[Cost], overlap: Cost) -> Exposure:
    if any(steps[part.at].matmul_flops for part in chain):
        return "fused"
    # The compiler of GPUs estimates no cycles, for matmuls either.
    works = overlap.cycles or overlap.matmul_flops or overlap.kernel_flops
    return "overlapped" if works and len(chain) > 1 else "exposed"


def _chains(module: Module, computation: Computation) -> list[list[_Part]]:
    """The parts of each collective in the order of the schedule."""
    chains: list[list[_Part]] = []
    under_way: dict[str, list[_Part]] = {}
    for at, launch in enumerate(computation):
        begun = _begun(computation, launch)
        if begun in under_way:
            chain = under_way[begun]
            chain.append(_Part(at, computation, chain[0].collective, launch))
            under_way[launch.name] = chain
        for inside, collective in _run_by(module, computation, launch):
            part = _Part(at, inside, collective, launch)
            link = _link(collective)
            if launch.opcode == "fusion" and link in under_way:
                under_way[link].append(part)
                if target(inside.root) == "AsyncCollectiveDone":
                    del under_way[link]
                continue
            chains.append([part])
            if launch.opcode.endswith("-start"):
                under_way[launch.name] = chains[-1]
            elif launch.opcode == "send":
                under_way[_rendezvous(launch)] = chains[-1]
            elif target(inside.root) == "AsyncCollectiveStart":
                under_way[link] = chains[-1]
    return chains


def _begun(computation: Computation, launch: Instruction) -> str:
    """What `_chains` knows a collective by that goes on or ends here; "" if none does."""
    if launch.opcode == "recv-done":
        return _rendezvous(computation.operand(launch))
    ends = launch.opcode.endswith(("-update", "-done"))
    return launch.operands[0] if ends else ""


def _rendezvous(transfer: Instruction) -> str:
    """What the two ends of a collective between slices share; "" for other transfers."""
    found = _BETWEEN_SLICES.search(transfer.attributes)
    meets = re.search(r'_xla_host_transfer_rendezvous="([^"]*)"', transfer.attributes)
    return f"rendezvous {meets[1]}" if found and meets else ""


def _run_by(
    module: Module, computation: Computation, launch: Instruction
) -> Iterator[tuple[Computation, Instruction]]:
    """Collectives that an instruction runs, each with the computation that holds it."""
    if _kind(launch):
        yield computation, launch
    elif launch.opcode in ("fusion", *ASYNCHRONOUS_CALLS):
        for inside in module.called(launch):
            for inner in inside:
                yield from _run_by(module, inside, inner)


def _kind(instruction: Instruction) -> str:
    """What kind of collective starts here, or runs whole; "" if none does."""
    kind = instruction.opcode.removesuffix("-start")
    if kind == "send" and (found := _BETWEEN_SLICES.search(instruction.attributes)):
        kind = found[1].lower().replace("_", "-")
    return kind if kind in COLLECTIVES else ""


def _link(collective: Instruction) -> str:
    """What the parts of one asynchronous collective fusion share."""
    chain = re.search(r'chain_id="(\d+)"', collective.attributes)
    return f"chain {chain[1] if chain else ''}, channel {collective.attribute('channel_id')}"


def _kind_and_output(chain: Sequence[_Part]) -> tuple[str, int]:
    first, last = chain[0], chain[-1]
    kind = _kind(first.collective)
    if first.launch.opcode != "fusion":
        return kind, last.launch.bytes
    slices = first.inside.users[first.collective.name]
    if kind == "all-reduce" and slices and all(one.opcode == "dynamic-slice" for one in slices):
        return "reduce-scatter", sum(one.bytes for one in slices)
    return kind, first.collective.bytes


def _stands_for(module: Module, computation: Computation, chain: Sequence[_Part]) -> str:
    first, last = chain[0], chain[-1]
    if first.launch.opcode == "fusion":
        return ""
    if all(is_zero_padded(module, computation, name) for name in first.launch.operands):
        return "all-gather"
    return "reduce-scatter" if is_sliced(module, computation, last.launch.name) else ""
